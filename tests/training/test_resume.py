"""An interrupted training goes on exactly where it stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from vae_cli import cli
from vae_cli.config import compose
from vae_cli.errors import CheckpointError, ConfigError, DataError, UserError
from vae_cli.runs import checkpoint
from vae_cli.system import threads
from vae_cli.training import loop
from vae_cli.training.run import run as train

SMALL = [
    "report=false",
    "epochs=4",
    "batch_size=128",
    "latent_dim=3",
    "device=cpu",
    "encoder.hidden=[16]",
    "decoder.hidden=[16]",
    "sample_every=2",
]
FULL = [*SMALL, "dataset.binarize=dynamic", "ema_decay=0.9", "scheduler=cosine", "clip_grad_norm=50"]
TIMING = ("seconds", "images_per_second")


def start(directory, *overrides):
    return train(compose.compose("train", [*FULL, *overrides]), directory)


def go_on(directory, *overrides):
    overridden = frozenset({"resume", *(word.partition("=")[0] for word in overrides)})
    return train(compose.compose("train", [f"resume={directory}", *overrides]), directory, overridden)


def numbers(directory):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMING} for line in lines]


def assert_same_outcome(one, other):
    for name in ("best", "last"):
        a, b = (checkpoint.load(d / "checkpoints" / f"{name}.safetensors") for d in (one, other))
        for part in ("model", "ema"):
            assert (a[part] is None) == (b[part] is None)
            assert all(torch.equal(a[part][key], b[part][key]) for key in a[part] or ()), name
        assert a["best"] == b["best"]
    assert numbers(one) == numbers(other)
    summaries = [json.loads((d / "summary.json").read_text()) for d in (one, other)]
    assert summaries[0]["test"] == summaries[1]["test"] and summaries[1]["status"] == "completed"
    for folder in ("samples", "reconstructions"):
        assert {p.name for p in (one / folder).iterdir()} == {p.name for p in (other / folder).iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    assert start(directory) == 0
    return directory


class Killed(BaseException):
    """Stands for kill -9: nothing in the program expects it."""


def killed_at(step, directory, monkeypatch, *overrides):
    honest = loop.step

    def dying(state, *arguments):
        if state.position.step == step:
            raise Killed
        honest(state, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "step", dying)
        start(directory, *overrides)


@pytest.mark.parametrize("step", [0, 5, 12, 13, 30, 47])
def test_a_killed_run_resumed_equals_one_that_was_not_bit_for_bit(step, undisturbed, tmp_path, monkeypatch):
    killed_at(step, tmp_path / "run", monkeypatch)
    assert go_on(tmp_path / "run") == 0
    assert_same_outcome(undisturbed, tmp_path / "run")


LADDER = ["model=ladder", "model.latents=[4,2]", "model.widths=[16,8]", "prior=vampprior", "prior.components=5"]
TOP_DOWN = ["model=top_down", "model.channels=[8,16]", "model.latents=[1,3]", "model.blocks=[2,1]", "model.depth=1"]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param([*LADDER, "conditional=true", "objective=stl"], marks=pytest.mark.slow),
        pytest.param(
            [*TOP_DOWN, "objective.free_bits=0.1", "optimizer=muon", "conditional=true"], marks=pytest.mark.slow
        ),
        ["model=ladder", "model.latents=[3,2]", "model.widths=[6,4]", "objective.free_bits=0.1"],
    ],
)
def test_a_killed_hierarchy_resumed_equals_one_that_was_not_bit_for_bit(model, tmp_path, monkeypatch):
    settings = [*model, "epochs=2", "report=false"]
    assert start(tmp_path / "whole", *settings) == 0
    killed_at(17, tmp_path / "run", monkeypatch, *settings)
    assert go_on(tmp_path / "run") == 0
    assert_same_outcome(tmp_path / "whole", tmp_path / "run")
    levels = {f"kl_{name}" for name in json.loads((tmp_path / "run" / "summary.json").read_text())["levels"]}
    assert levels and all(levels <= line.keys() for line in numbers(tmp_path / "run"))


def test_a_killed_run_with_a_module_of_the_objectives_own_resumed_equals_one_that_was_not_bit_for_bit(
    tmp_path, monkeypatch
):
    settings = ["objective=factor_vae", "objective.hidden=[12,8]", "objective.lr=0.01", "epochs=3", "mc_samples=2"]
    assert start(tmp_path / "whole", *settings) == 0
    killed_at(17, tmp_path / "run", monkeypatch, *settings)
    assert go_on(tmp_path / "run") == 0
    assert_same_outcome(tmp_path / "whole", tmp_path / "run")
    a, b = (
        checkpoint.load(tmp_path / name / "checkpoints" / "last.safetensors")["module"] for name in ("whole", "run")
    )
    for part in ("weights", "best"):
        assert a[part].keys() == b[part].keys()
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])
    kept = [[v for values in each["optimizer"]["state"].values() for v in values.values()] for each in (a, b)]
    assert len(kept[0]) == 18 and all(torch.equal(*pair) for pair in zip(*kept))


def test_a_kill_long_after_the_last_checkpoint_loses_nothing_but_time(undisturbed, tmp_path, monkeypatch):
    killed_at(45, tmp_path / "run", monkeypatch, "checkpoint_every=100")
    assert go_on(tmp_path / "run", "checkpoint_every=1") == 0
    assert_same_outcome(undisturbed, tmp_path / "run")


@pytest.mark.parametrize("step", [1, 12, 29, 48])
def test_a_signal_saves_in_mid_epoch_and_the_rest_equals_the_undisturbed(step, undisturbed, tmp_path, monkeypatch):
    honest = loop.step

    def signalling(state, *arguments):
        honest(state, *arguments)
        if state.position.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", signalling)
        assert start(tmp_path / "run") == 130
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    assert go_on(tmp_path / "run") == 0
    assert_same_outcome(undisturbed, tmp_path / "run")


def test_a_run_directory_may_be_moved(undisturbed, tmp_path, monkeypatch):
    killed_at(20, tmp_path / "run", monkeypatch)
    shutil.move(tmp_path / "run", tmp_path / "moved to = elsewhere")
    assert go_on(tmp_path / "moved to = elsewhere") == 0
    assert_same_outcome(undisturbed, tmp_path / "moved to = elsewhere")


def test_resuming_a_finished_run_says_so_and_changes_nothing(undisturbed, capsys):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}
    assert go_on(undisturbed) == 0
    assert "is finished after 4 epochs" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.rglob("*")}


def test_more_epochs_go_on_with_a_rebuilt_schedule_and_say_so(undisturbed, tmp_path, capsys):
    shutil.copytree(undisturbed, tmp_path / "run")
    assert go_on(tmp_path / "run", "epochs=6") == 0
    assert "rebuilt for 6 epochs instead of 4" in capsys.readouterr().out
    epochs = [(line["epoch"], line["split"]) for line in numbers(tmp_path / "run") if line["split"] != "test"]
    assert epochs == [(e, s) for e in range(1, 7) for s in ("train", "validation")]
    assert sum(line["split"] == "test" for line in numbers(tmp_path / "run")) == 1


def test_a_prolonged_run_that_was_killed_goes_on_too(undisturbed, tmp_path, monkeypatch):
    shutil.copytree(undisturbed, tmp_path / "run")
    honest = loop.step

    def dying(state, *arguments):
        if state.position.step == 65:
            raise Killed
        honest(state, *arguments)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(loop, "step", dying)
        go_on(tmp_path / "run", "epochs=6")
    assert go_on(tmp_path / "run") == 0
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 6


def test_data_that_are_no_longer_the_same_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    np.savez(path, train=np.eye(40, dtype=np.uint8).reshape(-1, 8, 8))
    killed_at(5, tmp_path / "run", monkeypatch, "dataset=arrays", f"dataset.path={path}", "batch_size=2")
    np.savez(path, train=np.ones((50, 8, 8), np.uint8))
    with pytest.raises(DataError, match=r"size 21 then and 41 now"):
        go_on(tmp_path / "run")


def test_other_images_of_the_same_number_are_refused_too(tmp_path, monkeypatch):
    path = tmp_path / "x.npz"
    images = np.eye(40, dtype=np.uint8).reshape(-1, 8, 8)
    np.savez(path, train=images)
    killed_at(5, tmp_path / "run", monkeypatch, "dataset=arrays", f"dataset.path={path}", "batch_size=2")
    np.savez(path, train=np.roll(images, 1, axis=2))
    with pytest.raises(DataError, match="other images or labels"):
        go_on(tmp_path / "run")
    np.savez(path, train=images)
    assert go_on(tmp_path / "run") == 0


def test_a_refused_resumption_leaves_a_completed_run_as_it_was(tmp_path):
    data = tmp_path / "x.npz"
    np.savez(data, train=np.eye(40, dtype=np.uint8).reshape(-1, 8, 8))
    run, line = tmp_path / "run", ["dataset=arrays", f"dataset.path={data}", "batch_size=5", "epochs=1", "report=false"]
    assert train(compose.compose("train", line), run) == 0
    before = (run / "summary.json").read_text()
    np.savez(data, train=np.eye(48, dtype=np.uint8).reshape(-1, 8, 8)[::-1])
    with pytest.raises(DataError, match="not those that it was trained on"):
        go_on(run, "epochs=2")
    assert (run / "summary.json").read_text() == before


def test_data_that_were_moved_are_named_by_path_or_folder_and_must_be_the_same(tmp_path, monkeypatch):
    data, moved = tmp_path / "here" / "x.npz", tmp_path / "there" / "x, y=z.npz"
    data.parent.mkdir()
    np.savez(data, train=np.eye(40, dtype=np.uint8).reshape(-1, 8, 8))
    killed_at(5, tmp_path / "run", monkeypatch, "dataset=arrays", f"dataset.path={data}", "batch_size=2")
    data.parent.rename(moved.parent)
    data.parent.mkdir()
    np.savez(data.parent / "other.npz", train=np.ones((25, 8, 8), np.uint8))
    (moved.parent / "x.npz").rename(moved)
    with pytest.raises(DataError, match=r"x\.npz does not exist; set dataset\.path"):
        go_on(tmp_path / "run")
    with pytest.raises(DataError, match="not those that it was trained on"):
        go_on(tmp_path / "run", f"dataset.path={data.parent / 'other.npz'}")
    monkeypatch.chdir(moved.parent)
    assert go_on(tmp_path / "run", f"dataset.path={moved.name}", f"data_dir={tmp_path}") == 0
    stored = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")["config"]
    assert stored["dataset"]["path"] == str(moved) and stored["data_dir"] == str(tmp_path)


def test_a_path_for_data_that_have_none_is_refused_by_their_name(undisturbed):
    with pytest.raises(ConfigError, match="dataset.path=x: .* was trained on digits, which has no path"):
        go_on(undisturbed, "dataset.path=x")


def test_two_trainings_in_one_directory_at_once_are_refused(undisturbed, tmp_path, monkeypatch):
    from vae_cli.runs.directory import RunDirectory

    killed_at(20, tmp_path / "run", monkeypatch)
    with RunDirectory(tmp_path / "run"), pytest.raises(UserError, match="is being trained by another process"):
        go_on(tmp_path / "run")
    assert go_on(tmp_path / "run") == 0
    assert_same_outcome(undisturbed, tmp_path / "run")


def test_a_damaged_best_checkpoint_is_left_aside_and_a_new_one_chosen(undisturbed, tmp_path, monkeypatch, capsys):
    killed_at(30, tmp_path / "run", monkeypatch)
    (tmp_path / "run" / "checkpoints" / "best.safetensors").write_bytes(b"damaged")
    assert go_on(tmp_path / "run") == 0
    said = capsys.readouterr().err
    assert "left aside" in said and "best.safetensors: damaged" in said and "chosen from here on" in said
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "best.safetensors")["best"]["epoch"] > 1


def test_without_a_whole_last_checkpoint_no_training_goes_on_and_the_best_is_named(tmp_path, monkeypatch):
    killed_at(30, tmp_path / "run", monkeypatch)
    last = tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match=r"last.safetensors: damaged.*best.safetensors is whole and can be"):
        go_on(tmp_path / "run")
    last.unlink()
    with pytest.raises(CheckpointError, match=r"no checkpoints/last.safetensors in it; best.safetensors alone can be"):
        go_on(tmp_path / "run")
    shutil.copy(last.with_name("best.safetensors"), last)
    with pytest.raises(CheckpointError, match="weights alone, and no state of a training"):
        go_on(tmp_path / "run")


def test_a_kill_between_the_two_checkpoints_of_an_epoch_loses_nothing(undisturbed, tmp_path, monkeypatch):
    """The best one is written first."""
    honest, saved = checkpoint.save, []

    def killed(path, contents):
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt
        honest(path, contents)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            start(tmp_path / "run")
    best, last = (checkpoint.load(tmp_path / "run" / "checkpoints" / f"{n}.safetensors") for n in ("best", "last"))
    assert best["progress"]["step"] > last["progress"]["step"]
    assert go_on(tmp_path / "run") == 0
    assert_same_outcome(undisturbed, tmp_path / "run")


def test_what_a_killed_save_left_is_removed_and_bytes_that_are_no_text_are_dropped(undisturbed, tmp_path, monkeypatch):
    killed_at(20, tmp_path / "run", monkeypatch)
    litter = tmp_path / "run" / "checkpoints" / ".last.safetensors.123.tmp"
    litter.write_bytes(b"half")
    with (tmp_path / "run" / "metrics.jsonl").open("ab") as file:
        file.write(b"gar\xffbage\n5\n[1]\n{}\n")
    assert go_on(tmp_path / "run") == 0
    assert not litter.exists()
    assert_same_outcome(undisturbed, tmp_path / "run")


def test_a_metrics_line_that_was_cut_short_is_dropped(undisturbed, tmp_path, monkeypatch):
    killed_at(20, tmp_path / "run", monkeypatch)
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
    assert go_on(tmp_path / "run") == 0
    assert_same_outcome(undisturbed, tmp_path / "run")


@pytest.mark.parametrize(
    "override",
    ["latent_dim=4", "batch_size=7", "seed=3", "optimizer.lr=1", "dataset=mnist", "hydra.run.dir=x", "foo=1"],
)
def test_what_would_change_the_training_may_not_be_given(override, undisturbed):
    with pytest.raises(ConfigError, match=f"{override.partition('=')[0]}: beside resume= only epochs, device"):
        go_on(undisturbed, override)


def test_fewer_epochs_than_are_done_are_refused(tmp_path, monkeypatch):
    killed_at(30, tmp_path / "run", monkeypatch)
    with pytest.raises(ConfigError, match="epochs=1: .* has trained for 2 epochs"):
        go_on(tmp_path / "run", "epochs=1")


def test_nothing_a_file_and_a_foreign_directory_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "foreign").mkdir()
    no_file = "no checkpoints/last.safetensors in it"
    for name, what in (("nothing", "does not exist"), ("file", "is a file"), ("foreign", no_file)):
        with pytest.raises(CheckpointError, match=what):
            go_on(tmp_path / name)
    assert not any((tmp_path / "foreign").iterdir())


def test_the_command_resumes_without_a_directory_of_its_own(undisturbed, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    killed_at(20, tmp_path / "a run", monkeypatch)
    with pytest.raises(SystemExit) as ended:
        cli.train(["resume=a run"])
    assert ended.value.code == 0
    assert_same_outcome(undisturbed, tmp_path / "a run")
    assert [p.name for p in tmp_path.iterdir()] == ["a run"]
    with pytest.raises(SystemExit) as ended:
        cli.train(["resume=a run", "latent_dim=2"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("vae-train: error: latent_dim: beside resume=")


@pytest.mark.slow
def test_twenty_kills_at_random_moments_change_nothing(tmp_path):
    """kill -9 of a real process, twenty times in one training, and SIGTERM in another."""
    data = ["dataset=mnist"] if "VAE_DATA_DIR" in os.environ else []
    command = [sys.executable, "-m", "vae_cli", "train"]
    overrides = [*data, "epochs=6", "device=cpu", "checkpoint_every=1 s"]
    subprocess.run([*command, *overrides, f"hydra.run.dir={tmp_path / 'calm'}"], check=True)
    generator = torch.Generator().manual_seed(0)
    for number in (signal.SIGKILL, signal.SIGTERM):
        directory, kills = tmp_path / number.name, 0
        while not (directory / "summary.json").exists() or "completed" not in (directory / "summary.json").read_text():
            fresh = not list(directory.glob("checkpoints/*.safetensors"))
            target = [*overrides, f"hydra.run.dir={directory}"] if fresh else [f"resume={directory}"]
            process = subprocess.Popen([*command, *target])
            if kills < 20:
                time.sleep(4 + 4 * float(torch.rand((), generator=generator)))
                kills += process.poll() is None
                process.send_signal(number)
            process.wait()
        assert kills == 20, "the training was too short for twenty kills"
        assert numbers(directory) == numbers(tmp_path / "calm")
        for name in ("best", "last"):
            a, b = (
                checkpoint.load(d / "checkpoints" / f"{name}.safetensors")["model"]
                for d in (directory, tmp_path / "calm")
            )
            assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_relative_path_to_the_data_holds_from_any_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    np.savez("x.npz", train=np.eye(40, dtype=np.uint8).reshape(-1, 8, 8))
    killed_at(5, tmp_path / "run", monkeypatch, "dataset=arrays", "dataset.path=x.npz", "batch_size=2")
    monkeypatch.chdir(tmp_path / "there")
    assert go_on(tmp_path / "run") == 0


def test_a_checkpoint_from_a_gpu_is_sampled_and_goes_on_without_one(undisturbed, tmp_path, monkeypatch):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    killed_at(20, tmp_path / "run", monkeypatch, "precision=bfloat16")
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    contents = checkpoint.load(path)
    contents["random"]["cuda"] = contents["random"]["torch"].clone()
    contents["config"]["device"] = "cuda"
    checkpoint.save(path, contents)
    (tmp_path / "run" / "checkpoints" / "best.safetensors").unlink()
    with pytest.raises(ConfigError, match="device=cuda: torch finds no CUDA GPU here"):
        go_on(tmp_path / "run")
    assert go_on(tmp_path / "run", "device=cpu") == 0
    with pytest.raises(SystemExit) as stop:
        cli.sample([f"checkpoint={path}", f"output={tmp_path / 'x.png'}", "n=4"])
    assert stop.value.code == 0


def test_resuming_at_what_is_no_run_directory_is_refused(undisturbed, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "foreign" / "checkpoints").mkdir(parents=True)
    (tmp_path / "foreign" / "checkpoints" / "last.safetensors").write_text("hello")
    for target in ("nothing", "file", "foreign", "."):
        with pytest.raises(SystemExit) as stop:
            cli.train([f"resume={tmp_path / target}"])
        assert stop.value.code == 1
    with pytest.raises(SystemExit) as stop:
        cli.train([f"resume={undisturbed}", "latent_dim=5"])
    assert stop.value.code == 1


def test_a_resumed_run_uses_as_many_threads_as_before(tmp_path, monkeypatch):
    used = []
    monkeypatch.setattr(threads, "use_threads", used.append)
    start(tmp_path / "run", "epochs=1", "threads=1")
    go_on(tmp_path / "run", "epochs=2")
    go_on(tmp_path / "run", "epochs=3", "threads=2")
    assert used == [1, 1, 2]


def test_an_optimizer_with_another_setting_than_its_configs_is_refused(undisturbed, tmp_path, monkeypatch):
    killed_at(20, tmp_path / "run", monkeypatch)
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    contents = checkpoint.load(path)
    assert contents["optimizer"]["param_groups"][0]["amsgrad"] is False
    contents["optimizer"]["param_groups"][0]["amsgrad"] = True
    checkpoint.save(path, contents)
    with pytest.raises(CheckpointError, match="the optimizer's amsgrad is not that of its config"):
        go_on(tmp_path / "run")


class Counting(torch.optim.Adam):
    """Keeps numbers that change among its settings, as schedule-free optimizers do."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, tuple(betas), eps, weight_decay)

    def step(self, closure=None):
        for group in self.param_groups:
            group["eps"] *= 1.001
        return super().step(closure)


def test_an_optimizer_of_ones_own_may_change_its_settings_and_goes_on(tmp_path, monkeypatch):
    killed_at(20, tmp_path / "run", monkeypatch, "optimizer._target_=tests.training.test_resume.Counting")
    overridden = frozenset({"resume", "allow"})
    settings = compose.compose("train", [f"resume={tmp_path / 'run'}", "allow=tests"])
    assert train(settings, tmp_path / "run", overridden) == 0
