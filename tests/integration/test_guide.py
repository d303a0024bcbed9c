"""README, guide and CONTRIBUTING: their links lead somewhere, their paths exist, and their commands compose."""

import json
import re
import shlex
from pathlib import Path

import pytest
import torch
from PIL import Image

import vae_cli
from vae_cli import cli
from vae_cli.build import options
from vae_cli.config.help import EXAMPLES
from vae_cli.inference.trained_model import TrainedModel
from vae_cli.training import run as training

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / ".docs").glob("*.md")), ROOT / ".github" / "CONTRIBUTING.md"]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
MOST_WORDS = 2000
MOST_BYTES = 300_000  # of the notebook
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
# Launchers whose plugins the tests' environment lacks, and option files that only a reader has.
NOT_HERE = ("hydra/launcher=slurm", "hydra/launcher=ray", "--config-dir", "my_package")


def code_snippets(text):
    """Yield every inline code and every line of a fenced block without a language."""
    yield from INLINE.findall(FENCED.sub("", text))
    for language, block in FENCED.findall(text):
        if not language:
            yield from block.replace("\\\n", " ").splitlines()


def shown_commands():
    """Return the complete commands on all pages; those that leave something open, as `[KEY=VALUE …]`, are left out."""
    snippets = {snippet.strip() for text in TEXTS.values() for snippet in code_snippets(text)}
    commands = {re.sub(r"(?<==)…", "run", snippet) for snippet in snippets if re.match(r"vae-\w+ ", snippet)}
    return sorted(
        command for command in commands if "…" not in command and not any(word in command for word in NOT_HERE)
    )


def first_job(words):
    """Return the settings of a sweep's first job, but for those that a search chooses."""
    of_jobs = [word for word in words if "=" in word and "(" not in word and not word.startswith(("hydra", "sweep="))]
    return [word.partition(",")[0] for word in of_jobs]


def anchors(text):
    """Return the fragments that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(TEXTS["README.md"].split()) <= MOST_WORDS


@pytest.mark.parametrize(
    ("page", "heading"), [("README.md", "## Where to read on"), (".docs/README.md", "# The guide")]
)
def test_every_page_of_the_guide_is_listed(page, heading):
    listed = re.findall(r"\]\((?:\.docs/)?(\w+\.md)\)", TEXTS[page].partition(heading)[2])
    pages = {name.removeprefix(".docs/") for name in TEXTS if name.startswith(".docs/")} - {"README.md"}
    assert pages <= {*listed}, pages - {*listed}


def test_the_readme_has_a_row_for_every_group():
    table = TEXTS["README.md"].partition("\n## Groups\n")[2].partition("\n## ")[0]
    rows = "".join(line.split(" | ")[0] for line in table.splitlines() if line.startswith("| "))
    named = set(INLINE.findall(rows))
    wanted = {*options.groups("train"), "hydra/sweeper", "hydra/launcher"}
    assert named == wanted, named ^ wanted


@pytest.mark.parametrize("page", TEXTS)
def test_commands_stand_in_fences_where_they_are_tested(page):
    assert not re.search(r"^ +(vae-\w+|make|torchrun|pip) ", TEXTS[page], re.MULTILINE)


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        name, _, fragment = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), target
        if fragment:
            assert fragment in anchors(path.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("page", TEXTS)
def test_paths_in_the_tree_exist(page):
    for snippet in INLINE.findall(TEXTS[page]):
        if re.fullmatch(r"(vae_cli|tests|conf|\.docs|\.github)/[\w./-]*", snippet) and "NAME" not in snippet:
            assert (ROOT / snippet).exists(), snippet


def test_contributing_lists_every_room():
    rooms = {f"vae_cli/{path.name}/" for path in (ROOT / "vae_cli").iterdir() if (path / "__init__.py").exists()}
    modules = {f"vae_cli/{path.name}" for path in (ROOT / "vae_cli").glob("[a-z]*.py")}
    assert rooms | modules <= set(INLINE.findall(TEXTS[".github/CONTRIBUTING.md"]))


def test_contributing_names_rows_of_tests_that_exist():
    rows = re.findall(r"`(\w+)`(?:, `(\w+)`)? in `(tests/[\w/]+\.py)`", TEXTS[".github/CONTRIBUTING.md"])
    assert len(rows) >= 4
    for *names, path in rows:
        text = (ROOT / path).read_text(encoding="utf-8")
        assert all(name in text for name in names), (names, path)


@pytest.mark.parametrize("page", TEXTS)
def test_options_have_files(page):
    groups = [*options.groups("train"), "hydra/launcher", "hydra/sweeper"]
    words = [word for snippet in code_snippets(TEXTS[page]) for word in snippet.split()]
    for group, name in re.findall(rf"^({'|'.join(groups)})=([a-z_]+)$", "\n".join(words), re.MULTILINE):
        assert name in options.options(group) or name in ("best", "laplace", "mine"), f"{group}={name}"


def test_the_shown_preset_composes(tmp_path, capsys):
    text = re.search(r"`parts/(experiment/mine\.yaml)`:\n\n```yaml\n(.*?)```", TEXTS[".docs/extending.md"], re.DOTALL)
    (tmp_path / "experiment").mkdir()
    (tmp_path / text[1]).write_text(text[2])
    with pytest.raises(SystemExit) as ended:
        cli.train(["--config-dir", str(tmp_path), "experiment=mine", "seed=1", "--cfg", "job"])
    printed = capsys.readouterr().out
    assert ended.value.code == 0 and "latent_dim: 32\n" in printed and "ConvDecoder" in printed


@pytest.mark.parametrize("command", shown_commands())
def test_a_shown_command_composes(command, capsys):
    name, *words = shlex.split(command)
    if "-m" in words:
        words = first_job(words)
    with pytest.raises(SystemExit) as ended:
        getattr(cli, name.removeprefix("vae-"))([*words, "--cfg", "job"])
    assert ended.value.code == 0, capsys.readouterr().err


def test_no_shell_takes_a_shown_setting_for_a_pattern_of_file_names():
    snippets = [snippet for text in TEXTS.values() for snippet in code_snippets(text)]
    commands = [text for text in snippets if re.match(r"(\w+=\S* )*(vae-\w+|torchrun|pip) ", text)]
    commands += [example for examples in EXAMPLES.values() for example in examples]
    assert any("between=" in command for command in commands)
    for command in commands:
        bare = re.sub(r"'[^']*'|\"[^\"]*\"|\[(GROUP|KEY)=\w+ …\]", "", command)
        assert not re.search(r"[][*?(){}]", bare), command


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory for trainings without their reports and warnings, which take longest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "judge", lambda *_: None)
    monkeypatch.setattr(training.run_page, "write", lambda *_, **__: None)


def test_every_block_of_the_python_page_runs(folder, capsys):
    names = {}
    for language, block in FENCED.findall(TEXTS[".docs/python.md"]):
        assert language == "python"
        exec(compile(block, "python.md", "exec"), names)  # noqa: S102
    assert names["samples"].shape == (64, 1, 8, 8) and names["images"].shape == (1797, 1, 8, 8)
    assert len(names["elbos"]) == 6 and names["as_nines"].shape == (3, 1, 8, 8) and names["saliency"].max() > 0
    assert names["neighbours"][0] == 0 and len(names["neighbours"].unique()) == 6
    with Image.open("interpolation.gif") as animation:
        assert animation.n_frames > 10 and animation.size == (160, 160)
    assert names["after"] > names["before"]
    tuned, before = vae_cli.load("tuned.safetensors"), vae_cli.load("runs/digits")
    assert torch.equal(tuned.sample(4), names["model"].sample(4)) and not torch.equal(tuned.sample(4), before.sample(4))
    assert "divide it by 255" in capsys.readouterr().out


def test_the_python_page_names_all_that_is_public():
    page = TEXTS[".docs/python.md"]
    methods = [name for name in dir(TrainedModel) if not name.startswith("_")]
    assert all(f"`{name}(" in page or f"`model.{name}`" in page for name in methods)
    assert all(f"vae_cli.{name}(" in page for name in vae_cli.__all__ if name != "__version__")


@pytest.mark.slow
def test_the_notebook_runs_and_its_outputs_are_kept(folder):
    text = (ROOT / ".docs" / "python.ipynb").read_text(encoding="utf-8")
    assert len(text) < MOST_BYTES
    assert not re.search(r"/(tmp|root|home|work|usr|Users)/", text)
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    kinds = {output["output_type"] for cell in cells for output in cell["outputs"]}
    assert all(cell["execution_count"] for cell in cells) and "error" not in kinds
    assert sum("image/png" in output.get("data", ()) for cell in cells for output in cell["outputs"]) >= 4
    names = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), "python.ipynb", "exec"), names)  # noqa: S102
    assert names["run"].status == "completed"
