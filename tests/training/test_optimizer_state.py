"""An optimizer's state out of a checkpoint: what goes with it is restored, and the rest refused."""

import copy

import pytest
import torch

from vae_cli.training import optimizer_state


def adam(steps=0, **settings):
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((3, 2), (4,))]
    optimizer = torch.optim.Adam(parameters, **({"lr": 0.1, "betas": (0.5, 0.9)} | settings))
    for _ in range(steps):
        step(optimizer)
    return optimizer


def step(optimizer):
    for parameter in optimizer.param_groups[0]["params"]:
        parameter.grad = parameter.detach().square()
    optimizer.step()


def test_a_restored_optimizer_steps_as_the_one_that_was_saved_and_keeps_the_flags_of_its_device():
    saved, other = adam(3, fused=False), adam(fused=True)
    pairs = list(zip(other.param_groups[0]["params"], saved.param_groups[0]["params"]))
    for parameter, theirs in pairs:
        parameter.data.copy_(theirs.data)
    optimizer_state.restore(other, copy.deepcopy(saved.state_dict()))
    assert other.param_groups[0]["fused"] is True and saved.param_groups[0]["fused"] is False
    for optimizer in (saved, other):
        step(optimizer)
    for parameter, theirs in pairs:
        torch.testing.assert_close(parameter, theirs)
        torch.testing.assert_close(other.state[parameter]["exp_avg_sq"], saved.state[theirs]["exp_avg_sq"])


WRONG = {
    "another setting": lambda state: state["param_groups"][0].update(betas=(0.9, 0.9)),
    "a setting of another type": lambda state: state["param_groups"][0].update(eps="small"),
    "a setting less": lambda state: state["param_groups"][0].pop("eps"),
    "a group less": lambda state: state["param_groups"].clear(),
    "momentum of another shape": lambda state: state["state"][1].update(exp_avg=torch.zeros(5)),
    "whole numbers": lambda state: state["state"][1].update(exp_avg=torch.zeros(4, dtype=torch.int64)),
    "a counter with an axis": lambda state: state["state"][0].update(step=torch.zeros(1)),
    "a text": lambda state: state["state"][0].update(exp_avg="none"),
    "a number for one parameter": lambda state: state["state"][0].update(step=3),
    "a parameter more": lambda state: state["state"].update({7: state["state"][0]}),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_state_that_does_not_go_with_the_optimizer_is_refused_and_changes_nothing(what):
    state, optimizer = copy.deepcopy(adam(2).state_dict()), adam()
    WRONG[what](state)
    with pytest.raises((ValueError, KeyError, IndexError)):
        optimizer_state.restore(optimizer, state)
    assert not optimizer.state and optimizer.param_groups[0]["betas"] == (0.5, 0.9)
