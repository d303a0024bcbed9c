"""The module that an objective trains beside the model: its steps, its weights and its checkpoints."""

import copy
import math
import shutil

import pytest
import torch
from safetensors import safe_open
from torch import nn

import vae_cli
from tests.support.damage import replaced, resumed, store
from tests.support.objectives import Balanced
from tests.support.training import lines, settings, trained
from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data.base import Data
from vae_cli.errors import ConfigError
from vae_cli.objectives import ELBO, FactorVAE, Objective
from vae_cli.runs import checkpoint
from vae_cli.training import loop
from vae_cli.training import run as running
from vae_cli.training.objective_module import ObjectiveModule
from vae_cli.training.run import run as train
from vae_cli.training.state import TrainingState

FACTOR = ["objective=factor_vae", "objective.hidden=[12,8]", "objective.lr=0.01", "epochs=1"]


def state_of(*overrides):
    config = settings(*FACTOR, *overrides)
    data: Data = parts.dataset(config).splits()
    return TrainingState(parts.with_choices(config, data.facts), data, torch.device("cpu"))


def one_step(state, spoil=lambda loss, state: None):
    number, batch = next(iter(state.batches.epoch(0, start=state.position.batch)))
    loss, sums = state.loss(batch, state.noise(len(batch[0]), 0, number))
    loss.backward()
    spoil(loss, state)
    loop.step(state, loss.detach(), sums)
    state.position.batch += 1


def everything(state):
    """The weights, and what both optimizers keep."""
    own = state.module
    tensors = [*state.parameters, *own.parameters]
    for optimizer in (state.optimizer, own.optimizer):
        tensors += [v for values in optimizer.state.values() for v in values.values()]
    return copy.deepcopy([tensor.detach() for tensor in tensors])


def first_gradient(parameters, value):
    next(p for p in parameters if p.grad is not None).grad.flatten()[0] = value


SPOILT = {
    "the model's gradient": lambda loss, state: first_gradient(state.parameters, math.nan),
    "the module's gradient": lambda loss, state: first_gradient(state.module.parameters, math.inf),
    "the loss": lambda loss, state: loss.data.fill_(math.nan),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_step_that_is_not_finite_in_any_part_leaves_both_optimizers_alone(what):
    state = state_of()
    one_step(state)
    before = everything(state)
    one_step(state, SPOILT[what])
    assert int(state.skipped.total) == 1
    assert all(torch.equal(a, b) for a, b in zip(before, everything(state), strict=True))
    one_step(state)
    assert not any(torch.equal(a, b) for a, b in zip(before, everything(state), strict=True))


def test_the_norms_that_clip_and_skip_are_of_the_models_gradient_alone():
    """The module's is a million times as large."""

    def enlarged(loss, state):
        for parameter in state.module.parameters:
            parameter.grad.mul_(1e9)

    state = state_of("clip_grad_norm=1e4", "skip_grad_norm=1e5")
    one_step(state, enlarged)
    assert int(state.skipped.total) == 0
    first = next(iter(state.module.optimizer.state.values()))["exp_avg"]
    assert first.abs().max() > 1e3


def test_the_module_follows_its_own_loss_at_its_own_rate_and_no_schedule():
    """A step of Adam is at first the rate, whatever the size of the gradient."""
    state = state_of("scheduler=cosine", "scheduler.warmup_epochs=1", "optimizer.lr=0.003")
    before = [parameter.detach().clone() for parameter in state.module.parameters]
    one_step(state)
    steps = torch.cat([(a - b).abs().flatten() for a, b in zip(before, state.module.parameters)])
    assert float(steps.detach().max()) == pytest.approx(0.01, rel=1e-3)
    assert state.optimizer.param_groups[0]["lr"] < 0.001


def test_averages_are_kept_of_the_model_alone():
    state = state_of("ema_decay=0.9")
    assert state.ema.averages.keys() == dict(state.model.named_parameters()).keys()


def test_the_module_starts_from_the_seed_and_the_model_as_without_it():
    one, again, other = state_of(), state_of(), state_of("seed=1")
    assert all(torch.equal(a, b) for a, b in zip(one.module.parameters, again.module.parameters))
    assert not any(torch.equal(a, b) for a, b in zip(one.module.parameters, other.module.parameters))
    config = settings("epochs=1")
    data = parts.dataset(config).splits()
    plain = TrainingState(parts.with_choices(config, data.facts), data, torch.device("cpu"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters, plain.parameters)) and plain.module is None


def test_a_validation_sees_the_module_in_evaluation_and_leaves_it_in_training(monkeypatch):
    state, seen = state_of(), []
    honest = FactorVAE.__call__

    def watching(self, *arguments):
        seen.append(self.module.training)
        return honest(self, *arguments)

    monkeypatch.setattr(FactorVAE, "__call__", watching)
    data = parts.dataset(state.config).splits()
    loop.validate(state, data.validation)
    assert seen and not any(seen) and state.module.module.training and state.model.training


# Checkpoints


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("factor") / "run"
    trained(directory, *FACTOR, "epochs=2", "sample_every=0")
    (directory / "summary.json").unlink()
    return directory


@pytest.fixture
def copied(run, tmp_path):
    shutil.copytree(run / "checkpoints", tmp_path / "run" / "checkpoints")
    return tmp_path / "run"


def test_the_last_checkpoint_holds_the_module_under_a_prefix_and_the_best_has_no_trace_of_it(run):
    names = {}
    for file in ("best", "last"):
        with safe_open(run / "checkpoints" / f"{file}.safetensors", framework="pt") as opened:
            names[file] = set(opened.keys())
    assert {f"training.module.weights.{layer}.weight" for layer in (0, 2, 4)} < names["last"]
    assert "training.module.optimizer.state.0.exp_avg" in names["last"]
    assert not any(name.startswith("training") for name in names["best"])
    assert all("module" not in name for name in names["best"])


def test_the_test_split_is_judged_by_the_module_of_the_best_epoch(tmp_path, monkeypatch):
    """The validation of epoch 1 of 2 is made to look best."""
    honest, seen = loop.evaluate, []

    def flattering(model, objective, *arguments, **more):
        numbers = honest(model, objective, *arguments, **more)
        seen.append(copy.deepcopy(objective.module.state_dict()))
        return numbers | {"loss": numbers["loss"] - 1e6 * (len(seen) == 1)}

    monkeypatch.setattr(loop, "evaluate", flattering)
    monkeypatch.setattr(running, "evaluate", flattering)
    assert trained(tmp_path, *FACTOR, "epochs=2", "sample_every=0")["best_epoch"] == 1
    first, second, last = seen
    assert all(torch.equal(first[name], last[name]) for name in first)
    assert not any(torch.equal(first[name], second[name]) for name in first)


DAMAGES = {
    "missing": ((), None),
    "without weights": (("weights",), {}),
    "a text for weights": (("weights",), "none"),
    "one weight more": (("weights", "9.bias"), torch.zeros(2)),
    "another shape": (("weights", "0.bias"), torch.zeros(7)),
    "another type": (("weights", "0.bias"), torch.zeros(12, dtype=torch.float64)),
    "not finite": (("weights", "0.bias"), torch.full((12,), math.nan)),
    "another shape of the best": (("best", "0.bias"), torch.zeros(7)),
    "other settings": (("optimizer", "param_groups", 0, "betas"), (0.9, 0.999)),
    "momentum of another shape": (("optimizer", "state", 0, "exp_avg"), torch.zeros(3)),
    "no optimizer": (("optimizer",), {"state": {}}),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_damaged_module_is_refused(what, copied):
    path, (place, value) = copied / "checkpoints" / "last.safetensors", DAMAGES[what]
    store(replaced(checkpoint.load(path), ("module", *place), value), path)
    said = resumed(copied, "epochs=3")
    assert said is not None and str(path) in said
    assert any(words in said for words in ("damaged", "do not fit together", "not finite")), said


def test_a_module_in_the_checkpoint_of_an_objective_without_one_is_refused(run, tmp_path):
    trained(tmp_path / "run", "epochs=1", "sample_every=0")
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    module = checkpoint.load(run / "checkpoints" / "last.safetensors")["module"]
    store(replaced(checkpoint.load(path), ("module",), module), path)
    assert "its objective has none" in resumed(tmp_path / "run", "epochs=2")


def test_a_checkpoint_from_before_there_were_modules_goes_on(tmp_path, monkeypatch):
    trained(tmp_path / "run", "epochs=1", "sample_every=0")
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    contents = checkpoint.load(path)
    with monkeypatch.context() as patch:  # the file as it was written then
        patch.setattr(checkpoint, "TRAINING_KEYS", ("optimizer", "scheduler", "random"))
        checkpoint.save(path, contents)
    assert checkpoint.load(path)["module"] is None
    assert resumed(tmp_path / "run", "epochs=2") is None
    assert len(lines(tmp_path / "run", "validation")) == 2


# Modules of other objectives


def test_an_objective_without_an_optimizer_of_its_own_has_adam_and_a_fixed_parameter_stays_out():
    objective = Balanced()
    objective.module = nn.Linear(2, 3)
    objective.module.bias.requires_grad_(False)
    own = ObjectiveModule(objective, torch.device("cpu"))
    assert isinstance(own.optimizer, torch.optim.Adam) and own.optimizer.param_groups[0]["params"] == own.parameters
    assert [p.shape for p in own.parameters] == [(3, 2)] and own.gradient_norm() == 0.0
    assert Objective.module is None and ELBO().module is None


def test_an_object_with_a_module_is_copied_so_that_it_can_be_trained_again(tmp_path):
    objective = Balanced()
    before = objective.module.weight.detach().clone()
    narrow = ["epochs=1", "report=false", "encoder.hidden=[4]", "decoder.hidden=[4]", "latent_dim=2", "sample_every=0"]
    vae_cli.train(*narrow, f"hydra.run.dir={tmp_path / 'run'}", objective=objective)
    assert torch.equal(objective.module.weight, before)
    stored = checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")["module"]["weights"]["weight"]
    assert not torch.equal(stored, before)


def test_an_object_with_a_module_for_codes_of_another_size_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="objective: the object has latent_dim=2, and the model latent_dim=3"):
        vae_cli.train("latent_dim=3", f"hydra.run.dir={tmp_path / 'run'}", objective=FactorVAE(latent_dim=2))


def test_a_module_that_has_no_room_in_memory_is_refused_before_it_is_built(tmp_path):
    too_wide = compose.compose("train", ["objective=factor_vae", "objective.hidden=[1000000,1000000]"])
    with pytest.raises(ConfigError, match=r"^objective: these networks have 1,000,[\d,]+ parameters"):
        train(too_wide, tmp_path / "run")
