"""TensorBoard, Weights & Biases and MLflow: what arrives there, offline, and that none of them ends a training."""

import json
import math
import sys
import time
from contextlib import suppress

import pytest

from tests.support.torchrun import scalars
from vae_cli import loggers
from vae_cli.build import options, registry
from vae_cli.config import compose
from vae_cli.errors import ConfigError
from vae_cli.runs import directory
from vae_cli.training.run import run as train

NARROW = ["encoder.hidden=[16]", "decoder.hidden=[16]", "device=cpu", "epochs=2", "latent_dim=3", "report=false"]


def trained(directory, *settings):
    return train(compose.compose("train", [*NARROW, *settings]), directory, frozenset())


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_tensorboard_has_every_curve_the_pictures_and_the_hyperparameters(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    trained(tmp_path, "optimizer.lr=0.002")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for line in lines(tmp_path):
        for name, value in scalars(line):
            if name not in ("epoch", "step", "split"):
                points = {e.step: e.value for e in events.Scalars(f"{line['split']}/{name}")}
                assert points[line["step"]] == pytest.approx(value, rel=1e-6)
    assert {"samples", "reconstructions"} <= set(events.Tags()["images"])
    plugin = events.PluginTagToContent("hparams")
    assert set(plugin) == {metadata.EXPERIMENT_TAG, metadata.SESSION_START_INFO_TAG, metadata.SESSION_END_INFO_TAG}
    started = metadata.parse_session_start_info_plugin_data(plugin[metadata.SESSION_START_INFO_TAG])
    logged = {
        name: value.WhichOneof("kind") and getattr(value, value.WhichOneof("kind"))
        for name, value in started.hparams.items()
    }
    assert logged["optimizer.lr"] == 0.002 and logged["latent_dim"] == 3 and logged["optimizer"] == "Adam"
    experiment = metadata.parse_experiment_plugin_data(plugin[metadata.EXPERIMENT_TAG])
    assert "test/elbo" in {info.name.tag for info in experiment.metric_infos}


def written(path):
    """The records of a file of Weights & Biases: LevelDB's log format, in blocks of 32 KiB, behind 7 bytes."""
    data, place, record = path.read_bytes(), 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        if left < 7 or kind == 0:
            place += left
            continue
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or a last part
            yield record
            record = b""


def wandb_run(path):
    """Return the project, settings, lines of history and summary that wandb's own file holds so far."""
    from wandb.proto.wandb_internal_pb2 import Record

    def read(items):
        return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

    project, settings, history, summary = None, {}, [], {}
    for record in map(Record.FromString, written(path)):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            project = record.run.project
            settings |= read(record.run.config.update)
        if kind == "history":
            history.append(read(record.history.item))
        if kind == "summary":
            summary |= read(record.summary.update)
    return project, settings, history, summary


@pytest.mark.slow
def test_weights_and_biases_gets_the_curves_pictures_and_settings_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    from google.protobuf.message import DecodeError

    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    assert trained(tmp_path / "run", "logger=wandb", "logger.mode=offline", "logger.project=mine") == 0
    (stored,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    deadline = time.monotonic() + 20  # a process of wandb's own writes the file
    while True:
        with suppress(DecodeError):
            project, settings, history, summary = wandb_run(stored)
            if summary.get("status"):
                break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert project == "mine" and settings["latent_dim"] == 3 and settings["encoder"]["hidden"] == [16]
    for line in lines(tmp_path / "run"):
        (row,) = [h for h in history if f"{line['split']}/elbo" in h and h["step"] == line["step"]]
        assert row[f"{line['split']}/elbo"] == pytest.approx(line["elbo"])
    pictures = {key.partition(".")[0] for row in history for key in row if "." in key}
    assert {"samples", "reconstructions"} <= pictures
    assert summary["status"] == "completed"


@pytest.mark.slow
def test_mlflow_gets_the_curves_pictures_and_settings_in_a_local_file(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("sqlalchemy", reason="the extra mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert trained(tmp_path / "run", "logger=mlflow", "logger.experiment_name=mine") == 0
    client = mlflow.MlflowClient()
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert run.info.run_name == f"{tmp_path.name}/run" and run.info.status == "FINISHED"
    assert run.data.params["latent_dim"] == "3" and run.data.params["encoder"] == "MLPEncoder"
    for line in lines(tmp_path / "run"):
        points = {p.step: p.value for p in client.get_metric_history(run.info.run_id, f"{line['split']}/elbo")}
        assert points[line["step"]] == pytest.approx(line["elbo"])
    assert {"samples", "reconstructions"} <= {item.path for item in client.list_artifacts(run.info.run_id)}

    settings = compose.compose("train", [f"resume={tmp_path / 'run'}", "epochs=3", "logger=mlflow"])
    overridden = frozenset({"resume", "epochs", "logger"})
    assert train(settings, tmp_path / "run", overridden) == 0
    history = client.get_metric_history(run.info.run_id, "train/elbo")
    assert len({point.step for point in history}) == 3 and client.get_run(run.info.run_id).info.status == "FINISHED"


def test_a_logger_out_of_a_checkpoint_is_named_and_not_used(tmp_path, capsys, monkeypatch):
    trained(tmp_path)
    path = tmp_path / "checkpoints" / "last.safetensors"
    from vae_cli.runs import checkpoint

    contents = checkpoint.load(path)
    contents["config"]["logger"] = options.option("logger", "mlflow")
    for name in ("last", "best"):
        checkpoint.save(path.with_stem(name), contents)
    monkeypatch.setattr(loggers, "_import", lambda name: pytest.fail(f"{name} was used"))
    settings = compose.compose("train", [f"resume={tmp_path}", "epochs=3"])
    assert train(settings, tmp_path, frozenset({"resume", "epochs"})) == 0
    assert "only a logger= beside resume= is used" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_service_that_is_not_installed_is_said_before_training(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=f"logger={name} needs a package that is not installed: pip install {name}"):
        trained(tmp_path, f"logger={name}")
    assert not list(tmp_path.glob("checkpoints/*"))


def test_a_service_that_cannot_begin_is_refused_with_a_way_out(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(ConfigError, match="logger=mlflow cannot begin"):
        trained(tmp_path / "run", "logger=mlflow")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["logger=wnadb"], "did you mean wandb"),
        (["logger=wandb", "logger.mode=loud"], "null or online, offline or disabled"),
        (["logger=wandb", "logger.projct=x"], "unknown key logger.projct"),
        (["logger.project=x"], "logger=wandb has it"),
    ],
)
def test_a_wrong_setting_is_answered_with_what_is_right(settings, message):
    with pytest.raises(ConfigError, match=message):
        registry.check_groups(compose.compose("train", settings), frozenset())


class Faulty(loggers.NoLogger):
    pass


@pytest.mark.parametrize("method", ["metrics", "picture", "finish"])
def test_a_logger_that_breaks_does_not_end_a_training(method, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("the line is down")

    real = registry.construct
    monkeypatch.setattr(Faulty, method, broken, raising=False)
    monkeypatch.setattr(registry, "construct", lambda group, *a: Faulty() if group == "logger" else real(group, *a))
    assert trained(tmp_path) == 0
    said = (tmp_path / "train.log").read_text()
    assert "Faulty could not be written, the training goes on: the line is down" in said
    assert all(math.isfinite(line["elbo"]) for line in lines(tmp_path))


def test_a_logger_that_fails_slowly_or_again_and_again_is_left_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(loggers.Loggers, "LONGEST_FAILURE", 0.1)
    calls = []

    class Down(loggers.NoLogger):
        def __init__(self, seconds):
            self.seconds = seconds

        def metrics(self, *_):
            calls.append(self.seconds)
            time.sleep(self.seconds)
            raise OSError("no answer")

    with directory.RunDirectory(tmp_path) as output:
        output.log_to(loggers.Loggers(Down(0.0), Down(0.2)), {})
        for step in range(6):
            output.metrics(1, step, "train", {"elbo": -1.0})
    assert calls.count(0.0) == loggers.Loggers.MOST_FAILURES and calls.count(0.2) == 1
    assert "nothing more is sent there" in (tmp_path / "train.log").read_text()


def test_a_logger_hears_how_a_run_ended(tmp_path):
    heard = []

    class Listening(loggers.NoLogger):
        def finish(self, status, test):
            heard.append((status, test))

    for status in ("completed", "interrupted", "failed"):
        with directory.RunDirectory(tmp_path / status) as output:
            output.log_to(Listening(), {})
            output.note(test={"elbo": -1.0})
            output.end(status)
    assert heard == [(status, {"elbo": -1.0}) for status in ("completed", "interrupted", "failed")]
