"""The optimizer that torch has only for a part of the parameters."""

import copy

import pytest
import torch

from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError
from vae_cli.optimizers import Muon
from vae_cli.runs import checkpoint
from vae_cli.training.run import run as train

pytestmark = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


def gradients(parameters, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def model():
    torch.manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape)) for shape in ((30, 50), (30,), (4, 3, 3, 3), (20, 30))]


def test_a_matrix_moves_along_its_gradient_with_all_singular_values_about_alike():
    """Against the exact polar factor, by a singular value decomposition; Muon's iteration leaves 0.6 … 1.3 of it."""
    (matrix,) = parameters = model()[:1]
    before = matrix.detach().clone()
    optimizer = Muon(parameters, lr=0.1)
    gradients(parameters, 1)
    u, _, vt = torch.linalg.svd(matrix.grad, full_matrices=False)
    optimizer.step()
    moved = u.T @ (before - matrix.detach()) @ vt.T / (0.1 * 0.2 * 50**0.5)
    values = moved.diagonal()
    assert values.min() > 0.6 and values.max() < 1.3
    assert (moved - values.diag()).abs().max() < 0.05


def test_tables_of_components_and_labels_are_no_matrices_of_layers():
    line = ["optimizer=muon", "prior=mixture_of_normals", "conditional=true", "encoder=conv", "likelihood=bernoulli"]
    settings = compose.compose("train", line)
    vae = parts.model(settings, DataFacts("m", (1, 8, 8), "binary", 10, 100))
    orthogonal, others = (group["params"] for group in parts.optimizer(settings, vae).param_groups)
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    layers = {layer.weight.data_ptr() for layer in vae.modules() if isinstance(layer, kinds)}
    assert {p.data_ptr() for p in orthogonal} == layers
    assert {p.data_ptr() for p in others} == {p.data_ptr() for p in vae.parameters()} - layers
    assert any(p.ndim == 2 for p in others)


def test_all_else_moves_as_by_adam():
    parameters = model()
    others = [torch.nn.Parameter(parameters[1].detach().clone())]
    ours, theirs = Muon(parameters, lr=3e-3, betas=(0.8, 0.99)), torch.optim.Adam(others, 3e-3, (0.8, 0.99))
    for step in range(5):
        gradients(parameters, step)
        others[0].grad = parameters[1].grad.clone()
        ours.step()
        theirs.step()
    torch.testing.assert_close(parameters[1], others[0])


def test_a_convolution_moves_as_the_matrix_of_its_weights():
    convolution = torch.nn.Parameter(torch.randn(4, 3, 3, 3))
    matrix = torch.nn.Parameter(convolution.detach().flatten(1).clone())
    one, other = Muon([convolution], lr=0.1, weight_decay=0.1), Muon([matrix], lr=0.1, weight_decay=0.1)
    for step in range(4):
        gradients([convolution], step)
        matrix.grad = convolution.grad.flatten(1)
        convolution.data = convolution.data.clone()  # as an average of the weights changes its memory
        one.step()
        other.step()
    assert torch.equal(convolution.flatten(1), matrix)


def test_it_goes_on_from_its_state_bit_for_bit():
    one = model()
    optimizer = Muon(one)
    for step in range(3):
        gradients(one, step)
        optimizer.step()
    other = [torch.nn.Parameter(p.detach().clone()) for p in one]
    again = Muon(other)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for step in range(3, 6):
        for parameters, used in ((one, optimizer), (other, again)):
            gradients(parameters, step)
            used.param_groups[0]["lr"] = 0.01 / step
            used.step()
    assert all(torch.equal(a, b) for a, b in zip(one, other))


@pytest.mark.parametrize("networks", ["mlp", pytest.param("conv", marks=pytest.mark.slow)])
def test_a_run_with_it_is_resumed_bit_for_bit(networks, tmp_path):
    line = ["optimizer=muon", f"encoder={networks}", f"decoder={networks}", "report=false", "scheduler=constant"]
    line += [] if networks == "conv" else ["encoder.hidden=[32]", "decoder.hidden=[32]"]
    for name, epochs in (("whole", 4), ("parts", 2)):
        settings = compose.compose("train", [*line, f"epochs={epochs}"])
        train(settings, tmp_path / name)
    more = compose.compose("train", [f"resume={tmp_path / 'parts'}", "epochs=4"])
    train(more, tmp_path / "parts", frozenset({"epochs"}))
    paths = [tmp_path / name / "checkpoints" / "last.safetensors" for name in ("whole", "parts")]
    weights = [checkpoint.load(path)["model"] for path in paths]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_in_float32_it_goes_on_from_the_state_of_torchs_in_bfloat16_with_about_the_same_steps(monkeypatch):
    monkeypatch.setattr("vae_cli.optimizers.has_bfloat16", lambda device: True)
    begun = [p for p in model() if p.ndim == 2]
    first = Muon(begun, lr=0.1, weight_decay=0.1)
    for step in range(2):
        gradients(begun, step)
        first.step()
    moves = {}
    for has_it in (True, False):
        monkeypatch.setattr("vae_cli.optimizers.has_bfloat16", lambda device, has_it=has_it: has_it)
        parameters = [torch.nn.Parameter(p.detach().clone()) for p in begun]
        optimizer = Muon(parameters, lr=0.1, weight_decay=0.1)
        optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
        for step in range(2, 4):
            gradients(parameters, step)
            optimizer.step()
        moves[has_it] = [p.detach() - before.detach() for p, before in zip(parameters, begun)]
    for one, other in zip(moves[True], moves[False]):
        assert not torch.equal(one, other)
        torch.testing.assert_close(one, other, rtol=0, atol=0.02 * float(one.abs().max()))


@pytest.mark.parametrize("has_it", [True, False])
def test_a_square_and_a_tall_matrix_move_by_their_polar_factors(has_it, monkeypatch):
    monkeypatch.setattr("vae_cli.optimizers.has_bfloat16", lambda device: has_it)
    for shape in ((12, 12), (40, 8)):
        matrix = torch.nn.Parameter(torch.zeros(shape))
        optimizer = Muon([matrix], lr=0.1, momentum=0.0)
        gradients([matrix], 1)
        u, _, vt = torch.linalg.svd(matrix.grad, full_matrices=False)
        optimizer.step()
        moved = u.T @ -matrix.detach() @ vt.T / (0.1 * 0.2 * max(shape) ** 0.5)
        assert moved.diagonal().min() > 0.4 and moved.diagonal().max() < 1.3


def test_a_torch_without_muon_is_told_in_a_sentence(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ConfigError, match="optimizer=muon needs torch 2.9"):
        Muon(model())
