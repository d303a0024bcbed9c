"""The average of the weights."""

import json

import torch

from tests.support.training import elbo_on_test, trained
from vae_cli.runs import checkpoint
from vae_cli.training.ema import EMA


def test_an_average_of_weights_is_swapped_in_and_out():
    layer = torch.nn.Linear(2, 1)
    ema = EMA(layer, 0.5)
    start = layer.weight.detach().clone()
    layer.weight.data += 1
    ema.update(step=10**6)
    with ema.applied():
        torch.testing.assert_close(layer.weight, start + 0.5)
    torch.testing.assert_close(layer.weight, start + 1)


def test_a_checkpoint_of_the_averaged_weights_is_what_the_test_split_sees(tmp_path):
    trained(tmp_path, "ema_decay=0.9")
    best, last = (checkpoint.load(tmp_path / "checkpoints" / f"{name}.safetensors") for name in ("best", "last"))
    assert best["progress"]["step"] == last["progress"]["step"]  # so that the raw weights are those of the best epoch
    used = checkpoint.weights(best)
    assert used.keys() == last["model"].keys()
    assert any(not torch.equal(used[k], last["model"][k]) for k in used)
    averaged, raw = (elbo_on_test(best, weights) for weights in (used, last["model"]))
    assert json.loads((tmp_path / "summary.json").read_text())["test"]["elbo"] == averaged != raw
