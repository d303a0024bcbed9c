"""What `import vae_cli` offers to Python code: trainings in this process, with parts of one's own."""

import json
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import version
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import VersionBase
from torch import nn
from torch.distributions import Laplace

import vae_cli
from tests.support.commands import status
from vae_cli import cli, errors
from vae_cli.data import Dataset, Images, InMemory, Source
from vae_cli.distributions import BernoulliLikelihood, DiscretizedLogisticLikelihood, Prior
from vae_cli.networks import MLPDecoder, MLPEncoder
from vae_cli.objectives import ELBO
from vae_cli.training import loop

SMALL = ["epochs=1", "latent_dim=2", "report=false", "device=cpu", "encoder.hidden=[8]", "decoder.hidden=[8]"]
OF_PARTS = [setting for setting in SMALL if "hidden" not in setting]


class LaplacePrior(Prior):
    def __init__(self, latent_dim, scale=1.0):
        super().__init__(latent_dim)
        self.register_buffer("scale", torch.full((latent_dim,), scale))

    def forward(self, encode, y=None):
        return Laplace(torch.zeros_like(self.scale), self.scale)


class Encoder(nn.Sequential):
    def __init__(self, shape, out_features):
        super().__init__(nn.Flatten(), nn.Linear(int(np.prod(shape)), out_features))


class Stripes(Dataset):
    def load(self):
        values = np.zeros((60, 1, 6, 6), np.uint8)
        values[np.arange(60), :, np.arange(60) % 6] = 200
        return Source(Images(values, np.arange(60) % 6), None, None, "levels256")


def refused(call, message):
    with pytest.raises(errors.UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (50, 6, 6), np.uint8)


def test_importing_the_package_imports_neither_torch_nor_hydra():
    code = "import sys, vae_cli; print({'torch', 'hydra', 'numpy'} & {*sys.modules}, vae_cli.load.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "set() load\n", done.stderr


def test_public_names_are_there_and_no_others():
    assert {*vae_cli.__all__} == {"__version__", "load", "train"} <= {*dir(vae_cli)}
    assert all(getattr(vae_cli, name) is not None for name in vae_cli.__all__)
    assert not hasattr(vae_cli, "sample_from")


def test_a_training_is_that_of_the_command_bit_for_bit_and_leaves_no_traces(tmp_path):
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    streams = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    version.setbase("1.2")
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance().getbase()
    handlers, threads, place = signal.getsignal(signal.SIGINT), torch.get_num_threads(), Path.cwd()
    run = vae_cli.train(*SMALL, "threads=1", directory=tmp_path / "a run, =1")
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == streams
    assert before == (GlobalHydra.instance().hydra, HydraConfig.instance().cfg, VersionBase.instance().getbase())
    assert (signal.getsignal(signal.SIGINT), torch.get_num_threads(), Path.cwd()) == (handlers, threads, place)

    assert run.directory == tmp_path / "a run, =1" and run.status == "completed" and "completed" in repr(run)
    assert [line["split"] for line in run.metrics] == ["train", "validation", "test"]
    assert status(cli.train, *SMALL, "threads=1", f"hydra.run.dir={tmp_path / 'b'}") == 0
    summary = json.loads((tmp_path / "b" / "summary.json").read_text())
    assert run.summary["test"] == summary["test"]
    assert torch.equal(run.load("cpu").sample(3), vae_cli.load(tmp_path / "b").sample(3))
    command = (run.directory / "command.txt").read_text()
    assert command.startswith("vae_cli.train('epochs=1', ") and f"directory='{run.directory}')" in command


def test_a_run_goes_on_where_it_stands_and_is_not_trained_over(tmp_path):
    run = vae_cli.train(*SMALL, directory=str(tmp_path / "run"))
    refused(lambda: vae_cli.train(*SMALL, directory=run.directory), "holds a training already: resume=.* goes on")
    more = vae_cli.train("epochs=2", resume=run)
    whole = vae_cli.train(*SMALL, "epochs=2", directory=tmp_path / "whole")
    assert more.directory == run.directory and more.summary["test"] == whole.summary["test"]
    assert vae_cli.train(resume=str(run.directory)).summary["epochs"] == 2  # nothing is left to do


def test_without_a_directory_the_run_is_where_the_command_puts_it(tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    assert vae_cli.train(*SMALL).directory.parent == tmp_path / "outputs" / "digits"
    assert vae_cli.train(*SMALL, dataset=Stripes).directory.parent == tmp_path / "outputs" / "stripes"
    assert vae_cli.train(*SMALL, "hydra.run.dir=mine", dataset=images).directory == tmp_path / "mine"


def test_ctrl_c_leaves_a_run_that_can_go_on(tmp_path, monkeypatch):
    step = loop.step

    def interrupting(state, *arguments):
        step(state, *arguments)
        if state.position.step == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt) as stopped:
        patched.setattr(loop, "step", interrupting)
        vae_cli.train(*SMALL, directory=tmp_path / "run")
    assert str(stopped.value) == f"vae_cli.train(resume='{tmp_path / 'run'}') goes on"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "interrupted"
    more = vae_cli.train(resume=tmp_path / "run")
    assert more.summary["test"] == vae_cli.train(*SMALL, directory=tmp_path / "whole").summary["test"]


def test_a_second_interrupt_ends_a_notebook_by_an_exception(monkeypatch):
    monkeypatch.setattr(sys, "ps1", "In : ", raising=False)
    with loop.StopSignals() as signals, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
        assert signals.received == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_a_training_runs_in_another_thread(tmp_path):
    ended = []
    thread = threading.Thread(target=lambda: ended.append(vae_cli.train(*SMALL, directory=tmp_path / "run")))
    thread.start()
    thread.join(60)
    assert ended[0].status == "completed"


@pytest.mark.parametrize(
    ("settings", "keywords", "message"),
    [
        (["latent_dim=0"], {}, "latent_dim=0: latent_dim accepts an integer of at least 1"),
        (["latnt_dim=2"], {}, "did you mean latent_dim"),
        (["-m", "latent_dim=2,3"], {}, "'-m' is no setting of one run"),
        (["--help"], {}, "'--help' is no setting"),
        (["hydra.mode=MULTIRUN"], {}, "no setting of one run"),
        ([{"latent_dim": 2}], {}, "no setting of one run, such as 'latent_dim=16'"),
        ([], {"latent_dim": 2}, r"no keyword latent_dim: a setting is a text, as in vae_cli.train\('latent_dim=2'\)"),
        (["latent_dim=2 epochs=1"], {}, 'give each by itself, "latent_dim=2" and "epochs=1"'),
        ([], {"prir": LaplacePrior}, "did you mean prior="),
        (["resume=a"], {"resume": "b"}, "resume= says where already"),
        (["hydra.run.dir=a"], {"directory": "b"}, "directory= says where already"),
        ([], {"directory": "a", "resume": "b"}, "leave one out"),
        (["prior=vampprior"], {"prior": LaplacePrior}, "prior= is a part of your own; set prior there"),
        (["prior.scale=3"], {"prior": LaplacePrior}, "set prior.scale there"),
        ([], {"resume": "nowhere"}, "resume=nowhere does not exist"),
        (["model=ladder"], {"encoder": Encoder}, "encoder: model=ladder has model.latents, .* or choose model=vae"),
        (["model=ladder"], {"decoder": MLPDecoder}, "decoder: model=ladder has model.latents"),
    ],
)
def test_what_is_no_training_is_refused_and_makes_nothing(settings, keywords, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refused(lambda: vae_cli.train(*settings, **keywords), message)
    assert not [*tmp_path.iterdir()]


def test_parts_of_ones_own_are_trained_loaded_and_resumed(tmp_path):
    parts = {
        "encoder": Encoder((1, 6, 6), 4),
        "decoder": MLPDecoder,
        "prior": LaplacePrior(2, 0.5),
        "likelihood": DiscretizedLogisticLikelihood,
        "objective": ELBO(beta=2.0),
        "dataset": Stripes(validation=6),
    }
    start = parts["encoder"][1].weight.clone()
    run = vae_cli.train(*OF_PARTS, directory=tmp_path / "run", **parts)
    assert torch.equal(parts["encoder"][1].weight, start)  # a copy was trained
    settings = run.load().config
    assert settings["prior"] == {"_target_": "object:tests.test_api.LaplacePrior"} and run.status == "completed"
    model = vae_cli.load(run, **{group: parts[group] for group in ("encoder", "decoder", "prior", "likelihood")})
    assert torch.equal(model.sample(4), run.load().sample(4)) and model.model.prior.scale.tolist() == [0.5, 0.5]
    assert model.data.name == "stripes" and model.data.shape == (1, 6, 6)
    assert not torch.equal(model.model.encoder[1].weight, start)

    whole = vae_cli.train(*OF_PARTS, "epochs=2", directory=tmp_path / "whole", **parts)
    more = vae_cli.train("epochs=2", resume=run, **parts)
    assert more.summary["test"] == whole.summary["test"]


def test_a_part_that_is_not_passed_again_is_named(tmp_path):
    run = vae_cli.train(*SMALL, directory=tmp_path / "run", prior=LaplacePrior)
    again = r"prior: it was passed in Python, of the class tests.test_api.LaplacePrior; pass it again, as vae_cli.load"
    refused(lambda: vae_cli.load(run), again)
    refused(lambda: vae_cli.train("epochs=2", resume=run), again)
    summary = json.loads((run.directory / "summary.json").read_text())
    assert summary["status"] == "completed"  # as it was before the refused training
    assert status(cli.sample, f"checkpoint={run.directory}") == 1
    refused(lambda: vae_cli.load(run, prior=Stripes), "trained with a LaplacePrior and not a Stripes")
    refused(
        lambda: vae_cli.load(run, prior=LaplacePrior, encoder=Encoder), "encoder: .*needs no object; leave encoder="
    )
    refused(
        lambda: vae_cli.load(run, prior=LaplacePrior(3)), "latent_dim=3, and the model latent_dim=2; make them alike"
    )
    refused(lambda: vae_cli.load(run, priors=LaplacePrior), "did you mean prior=")
    assert vae_cli.load(run, prior=LaplacePrior).sample(2).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"prior": nn.Identity()}, "prior= is an object of Identity; pass a subclass of vae_cli.distributions.Prior"),
        ({"prior": Encoder}, "prior= is the class Encoder; pass a subclass"),
        ({"encoder": 3}, "encoder= is an object of int"),
        ({"prior": LaplacePrior(5)}, "prior: the object has latent_dim=5, and the model latent_dim=2"),
        ({"encoder": Encoder((1, 8, 8), 7)}, r"encoder: Encoder gives shape \(7,\) where \(4,\) is needed"),
        ({"encoder": Encoder((1, 5, 5), 4)}, r"encoder: Encoder fails on an input of shape \(1, 8, 8\)"),
        ({"likelihood": BernoulliLikelihood((1, 8, 8))}, "Bernoulli models binary pixels, but digits holds 8-bit"),
        ({"objective": ELBO(mc_samples=3)}, "objective: the object has mc_samples=3, and the model mc_samples=1"),
        ({"dataset": np.zeros(20)}, r"dataset train is 20; reshape it"),
        ({"dataset": {"pictures": np.zeros((4, 5, 5)), "test": np.zeros((4, 5, 5))}}, "dataset has no array train"),
        ({"dataset": np.full((4, 5, 5), 2.0)}, r"dataset train has floats from 2 to 2"),
        ({"dataset": "mnist"}, "dataset='mnist': an option is named in a string of its own, as in 'dataset=mnist'"),
        ({"prior": "vampprior"}, "as in 'prior=vampprior'"),
    ],
)
def test_parts_of_ones_own_are_checked(parts, message, tmp_path):
    settings = [setting for setting in SMALL if setting.partition(".")[0] not in parts]
    refused(lambda: vae_cli.train(*settings, directory=tmp_path / "run", **parts), message)


def test_arrays_are_a_data_set(images, tmp_path, capsys):
    arrays = {"train": images, "labels": np.arange(50) % 3, "test": images[:9], "test_labels": np.arange(9) % 3}
    run = vae_cli.train(*SMALL, "conditional=true", directory=tmp_path / "run", dataset=arrays)
    assert run.summary["data"] | {"train": 45, "validation": 5, "test": 9} == run.summary["data"]
    assert run.load().encode(images[:2], label=[0, 2]).mean.shape == (2, 2)
    assert status(cli.train, f"resume={run.directory}", "epochs=2") == 1
    assert "data that were passed in Python: name data with dataset.path=" in capsys.readouterr().err
    tensors = vae_cli.train(*SMALL, directory=tmp_path / "tensors", dataset=torch.from_numpy(images)[:, None] / 255)
    assert tensors.summary["data"]["support"] == "unit"
    refused(lambda: vae_cli.train("epochs=2", resume=run, dataset=images), "the data are not those")


def test_pixels_of_ones_own_data_are_binarized_as_in_training(images, tmp_path):
    run = vae_cli.train(*SMALL, directory=tmp_path / "run", dataset=InMemory(images, binarize="dynamic"))
    drawn = run.load().preprocess(images)
    assert drawn.unique().tolist() == [0, 1] and not torch.equal(drawn[:, 0], torch.from_numpy(images > 127).float())


def test_networks_of_the_package_can_be_passed_as_objects(tmp_path):
    run = vae_cli.train(*OF_PARTS, directory=tmp_path / "run", encoder=MLPEncoder((1, 8, 8), 4, hidden=[5]))
    assert run.load().encode(np.zeros((1, 8, 8), np.uint8)).mean.shape == (1, 2)
