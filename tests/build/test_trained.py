"""Models built from a checkpoint: absurd sizes are refused before they take memory, and no foreign class is built."""

import shutil
import time

import pytest

from tests.support.damage import answer, nested, peak, replaced, resumed, store
from vae_cli.build import trained
from vae_cli.config import compose
from vae_cli.errors import CheckpointError, ConfigError, UserError
from vae_cli.runs import checkpoint
from vae_cli.training.run import run as train


def test_weights_of_another_type_are_refused(contents, tmp_path):
    name = "decoder.layers.0.weight"
    whole = contents["model"][name].long()
    store(replaced(contents, ("model", name), whole) | {"ema": None}, tmp_path / "x.safetensors")
    assert "int64" in answer(tmp_path / "x.safetensors", lambda path: trained.load(path, "cpu"))


ABSURD = [
    (("latent_dim",), 10**12),
    (("latent_dim",), 10**7),
    (("latent_dim",), 10**30),
    (("encoder", "hidden"), [10**12]),
    (("encoder", "hidden"), [10**7, 10**7]),
    (("decoder", "hidden"), [1] * 9000),
    (("encoder", "hidden"), nested(400)),
    (("encoder", "activation"), "x" * 10**6),
    (("mc_samples",), 10**12),
    (("batch_size",), 10**12),
    (("epochs",), 10**30),
    (("clip_grad_norm",), "__import__('os')"),
    (("precision",), "load"),
    (("precision",), "save"),
    (("device",), "cuda:99999999999999999999"),
]


@pytest.mark.parametrize(("place", "value"), ABSURD)
def test_absurd_settings_take_no_memory_and_are_refused_or_have_no_effect(place, value, contents, run, tmp_path):
    directory = tmp_path / "run"
    path = directory / "checkpoints" / "last.safetensors"
    shutil.copytree(run / "checkpoints", path.parent)
    store(replaced(contents, ("config", *place), value), path)
    shutil.copy(path, path.with_name("best.safetensors"))
    before = peak(anew=True)
    message = answer(path, lambda path: trained.load(path, "cpu"))
    assert message is not None or place[0] in ("mc_samples", "batch_size", "epochs", "device")
    if place[0] != "epochs":
        said = resumed(directory, "epochs=2")
        assert said is not None or place[0] in ("batch_size", "clip_grad_norm")
    assert peak() - before < 5e8


FLOW = {"_target_": "vae_cli.distributions.FlowPrior", "transforms": 2, "hidden": [1], "bins": 8}


@pytest.mark.parametrize(
    ("latent_dim", "settings"),
    [
        (6000, {"kind": "maf"}),
        (10**9, {"kind": "nsf"}),
        (8, {"kind": "coupling", "hidden": [11_000, 11_000]}),
        (8, {"kind": "nsf", "transforms": 3000, "hidden": [1] * 900}),
        (8, {"kind": "coupling", "transforms": 10**9}),
    ],
)
def test_a_flow_larger_than_the_file_is_refused_before_it_is_built(latent_dim, settings, contents, tmp_path):
    changed = replaced(replaced(contents, ("config", "prior"), FLOW | settings), ("config", "latent_dim"), latent_dim)
    store(changed, tmp_path / "x.safetensors")
    before, began = peak(anew=True), time.monotonic()
    assert "is too large" in answer(tmp_path / "x.safetensors", lambda path: trained.load(path, "cpu"))
    assert peak() - before < 1e8 and time.monotonic() - began < 20


@pytest.mark.parametrize(
    "shape", [(3, 10**6, 10**6), (1, 10**12, 1), (10**9, 8, 8), (1, 8), (0, 8, 8), (1, 8, 8.5), "abc"]
)
def test_absurd_shapes_of_the_data_take_no_memory(shape, contents, tmp_path):
    path = tmp_path / "x.safetensors"
    store(replaced(contents, ("data", "shape"), shape), path)
    before = peak(anew=True)
    assert answer(path, lambda path: trained.load(path, "cpu")) is not None
    assert peak() - before < 5e8


TARGETS = [
    "os.system",
    "builtins.eval",
    "shutil.rmtree",
    "subprocess.Popen",
    "torch.load",
    "torch.hub.load",
    "pathlib.Path.write_text",
    "vae_cli.cli.train",
    "vae_cli.runs.checkpoint.load",
    "vae_cli.runs.checkpoint.torch.load",
    "vae_cli.config.compose.Hydra",
    "vae_cli.runs.directory.RunDirectory",
    "vae_cli.runs.directory.logging.FileHandler",
    "vae_cli.data.Arrays",
    "vae_cli.networks.layers.nn.Linear",
    "torch.optim.Adam",
    "torch.optim.lr_scheduler.LambdaLR",
    "torch.nn.Linear",
    "torch.optim.optimizer.functools.partial",
    "antigravity.x",
    "vae_cli",
    "",
    None,
    5,
    ["vae_cli.networks.MLPEncoder"],
]


@pytest.mark.parametrize("group", ["encoder", "decoder", "posterior", "prior", "likelihood"])
@pytest.mark.parametrize("target", TARGETS)
def test_a_config_reaches_for_nothing_but_components(group, target, contents, tmp_path):
    path = tmp_path / "x.safetensors"
    store(replaced(contents, ("config", group, "_target_"), target), path)
    assert answer(path, lambda path: trained.load(path, "cpu")) is not None


RESUMED = ("dataset", "objective", "optimizer", "scheduler")


def shared_out(number, target):
    """Every target with one of the groups in turn, the rest in the slow tests."""
    for place, group in enumerate(RESUMED):
        yield pytest.param(group, target, marks=[] if number % len(RESUMED) == place else pytest.mark.slow)


@pytest.mark.parametrize(
    ("group", "target"), [case for number, target in enumerate(TARGETS) for case in shared_out(number, target)]
)
def test_resuming_reaches_for_nothing_but_components(group, target, contents, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    path.parent.mkdir(parents=True)
    store(replaced(contents, ("config", group, "_target_"), target), path)
    settings = compose.compose("train", [f"resume={tmp_path / 'run'}", "epochs=2"])
    if (group, target) == ("optimizer", "torch.optim.Adam"):
        return
    with pytest.raises(UserError):
        train(settings, tmp_path / "run", frozenset(["resume", "epochs"]))


def altered(run, tmp_path, change):
    contents = checkpoint.load(checkpoint.find(run))
    change(contents)
    store(contents, tmp_path / "altered.safetensors")
    return tmp_path / "altered.safetensors"


@pytest.mark.parametrize(
    ("group", "target"),
    [
        ("encoder", "os.system"),
        ("encoder", "torch.nn.Identity"),
        ("decoder", "torch.hub.load"),
        ("prior", "subprocess.Popen"),
        ("decoder", "vae_cli.commands.sample.os.system"),
        ("posterior", "vae_cli.runs.checkpoint.torch.nn.Linear"),
        ("likelihood", "vae_cli.build.registry.importlib.import_module"),
        ("encoder", "my_package.MyEncoder"),
    ],
)
def test_a_checkpoint_can_build_nothing_but_this_packages_parts(group, target, run, tmp_path):
    path = altered(run, tmp_path, lambda c: c["config"][group].update(_target_=target))
    with pytest.raises(ConfigError, match=group):
        trained.load(path, "cpu")


def test_a_checkpoint_from_before_there_were_hierarchies_is_of_a_flat_model_and_is_gone_on_with(run, tmp_path):
    """Its config has neither model= nor skip_grad_norm=."""
    names = ("model", "skip_grad_norm")
    directory = tmp_path / "run"
    shutil.copytree(run, directory)
    for path in (directory / "checkpoints").glob("*.safetensors"):
        contents = checkpoint.load(path)
        old = {key: value for key, value in contents["config"].items() if key not in names}
        store(contents | {"config": old}, path)
    assert trained.load(directory / "checkpoints" / "last.safetensors", "cpu").model.is_flat
    assert resumed(directory, "epochs=2") is None
    stored = checkpoint.load(directory / "checkpoints" / "last.safetensors")
    assert stored["progress"]["epoch"] == 2 and stored["config"] == contents["config"] | {"epochs": 2}


def test_a_checkpoint_with_weights_or_settings_that_are_none_is_refused(run, tmp_path):
    def ruin(contents):
        next(iter(contents["model"].values())).fill_(float("nan"))

    with pytest.raises(CheckpointError, match=r"altered\.safetensors: its weights .* are not finite"):
        trained.load(altered(run, tmp_path, ruin), "cpu")
    for change in ({"precision": "load"}, {"latent_dim": -1}):
        with pytest.raises(ConfigError, match=next(iter(change))):
            trained.load(altered(run, tmp_path, lambda c, change=change: c["config"].update(change)), "cpu")
    with pytest.raises(CheckpointError, match="parts do not fit"):
        trained.load(altered(run, tmp_path, lambda c: c["data"].update(shape=(1, 8, 0))), "cpu")


def test_a_checkpoint_whose_weights_do_not_fit_is_refused(run, tmp_path):
    path = altered(run, tmp_path, lambda c: c["config"].update(latent_dim=5))
    with pytest.raises(CheckpointError, match=r"altered\.safetensors: its parts do not fit together"):
        trained.load(path, "cpu")
