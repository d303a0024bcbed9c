"""Rules of the design for the structure of the code."""

import ast
import re
from pathlib import Path

import vae_cli

PACKAGE = Path(vae_cli.__file__).parent
SOURCES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
LAYERS = """
    __main__ __init__ / cli api / sweeps / config / training / commands / exporting exploring / inference / generation
    evaluation reporting / build / loggers / objectives / models
    distributions networks data optimizers schedules / runs distributed / noise constraints system / errors
"""  # imports run from left to right and from line to line, never back


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_config_and_sweeps_touch_hydra_and_two_files_beside_them_omegaconf():
    for name, tree in SOURCES.items():
        libraries = {module.split(".")[0] for module in imported(tree)}
        if name.split("/")[0] not in ("config", "sweeps"):
            assert "hydra" not in libraries, name
            assert "omegaconf" not in libraries or name in ("build/options.py", "runs/config_file.py"), name


def test_nothing_loads_a_pickle_that_could_run_code():
    for name, tree in SOURCES.items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            called = ast.unparse(call.func)
            if called == "torch.load":
                assert any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in call.keywords), name
            if called in ("np.load", "numpy.load"):
                assert not any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in call.keywords), name
            assert called not in ("pickle.load", "pickle.loads"), name


def test_no_normalization_over_the_batch():
    assert not any("BatchNorm" in ast.dump(tree) for tree in SOURCES.values())


def test_functions_are_short():
    lengths = {
        f"{name}:{node.name}": node.end_lineno - node.lineno + 1
        for name, tree in SOURCES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert max(lengths.values()) <= 80, max(lengths, key=lengths.get)


def test_files_are_short_and_few_stand_at_the_root():
    for path in PACKAGE.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 400, path
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_imports_run_down_and_never_up():
    layers = [layer.split() for line in LAYERS.strip().splitlines() for layer in line.split("/")]
    level = {package: number for number, layer in enumerate(layers) for package in layer}
    for name, tree in SOURCES.items():
        package = name.split("/")[0].removesuffix(".py")
        for module in imported(tree):
            used = module.split(".")[1] if module.startswith("vae_cli.") else package
            assert used in (package, "__version__") or level[package] < level[used], f"{name} imports {module}"


def test_the_wheel_has_every_folder_of_code_settings_and_templates():
    """An installation in the tree finds them anyway."""
    listed = re.findall(r'^    "(vae_cli[\w.]*)",$', (PACKAGE.parent / "pyproject.toml").read_text(), re.MULTILINE)
    kinds = (".py", ".yaml", ".html", ".css", ".js")
    roots = [PACKAGE.parent / name for name in ("vae_cli", "conf")]
    files = [path for root in roots for path in root.rglob("*") if path.suffix in kinds]
    folders = {path.parent.relative_to(PACKAGE.parent).as_posix().replace("/", ".") for path in files}
    needed = {f"vae_cli.{folder}" if folder.split(".")[0] == "conf" else folder for folder in folders}
    assert needed == set(listed)
