"""ONNX files: the same numbers as the model's in onnxruntime, and their documentation inside."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.exporting import untrained
from vae_cli.errors import ConfigError, ExportError
from vae_cli.exporting import checks, onnx, programs

KINDS = {
    "binary, a full normal, a VampPrior": [
        *("dataset.binarize=threshold", "posterior=full_normal", "prior=vampprior", "prior.components=5"),
    ],
    "conditional, flows, a VampPrior of each label": [
        *("conditional=true", "prior=vampprior", "prior.components=4", "posterior=flow", "posterior.transforms=1"),
        *("likelihood=normal", "precision=bfloat16"),
    ],
    "flows": ["posterior=flow", "prior=flow", "prior.transforms=2"],
    "convolutions, mixtures": [
        *("encoder=conv", "decoder=conv", "encoder.channels=[4,8]", "decoder.channels=[8,4]"),
        *("likelihood=discretized_logistic_mixture", "prior=mixture_of_normals"),
    ],
    "residual, categorical": [
        *("encoder=resnet", "decoder=resnet", "encoder.channels=[4]", "decoder.channels=[4]", "likelihood=categorical"),
    ],
    "splines": ["posterior=flow", "posterior.kind=nsf", "prior=flow", "prior.kind=nsf", "prior.transforms=2"],
    "continuous Bernoulli, a learned prior": ["likelihood=continuous_bernoulli", "prior=learned_normal"],
    "a ladder, conditional, a VampPrior of each label": [
        *("model=ladder", "model.latents=[5,4,3]", "model.widths=[24,16,12]", "model.relative=false"),
        *("conditional=true", "prior=vampprior", "prior.components=4"),
    ],
    "feature maps, a flow at the top": [
        *("model=top_down", "model.latents=[2,3,4]", "model.channels=[6,8,12]", "model.blocks=[1,2,1]"),
        *("prior=flow", "prior.transforms=2", "precision=bfloat16"),
    ],
    "a scale of each pixel": ["likelihood=laplace", "likelihood.scale=per_pixel", "encoder=gated_mlp"],
}
QUICK = [*KINDS][1:2]


def exported(trained, part, has_parameters=False):
    program = programs.build(part, trained, has_parameters)
    return program, onnx.convert(program, trained)


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in KINDS])
def test_every_part_gives_the_models_numbers_in_batches_of_all_sizes(kind):
    trained = untrained(*KINDS[kind])
    images = checks.examples(trained, {"data_dir": None, "allow": None}, 70)
    assert images.kind == "test images"
    for part in programs.PARTS:
        program, model = exported(trained, part, has_parameters=True)
        assert checks.check(program, onnx.runner(model), images) <= 1e-5


def test_a_vamp_prior_draws_what_the_model_draws_from_the_same_noise_and_holds_no_encoder():
    trained = untrained("prior=vampprior", "prior.components=8", "encoder.hidden=[500]")
    noise = torch.randn(200, trained.model.prior.noise_dim)
    with torch.no_grad():
        z = trained.model.sample_latents(noise)
    _, model = exported(trained, "prior")
    assert model.ByteSize() < 20_000 < 4 * sum(p.numel() for p in trained.model.encoder.parameters())
    np.testing.assert_allclose(onnx.runner(model)({"noise": noise.numpy()})["z"], z, atol=1e-5)


def test_a_file_says_what_goes_in_and_out():
    trained = untrained("conditional=true")
    _, model = exported(trained, "encoder")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["inputs"]) == [
        {"name": "x", "dtype": "uint8", "shape": [1, 8, 8], "meaning": "8-bit images, values 0 to 255"},
        {"name": "label", "dtype": "int64", "shape": [], "meaning": "the label's number, 0 to 9"},
    ]
    assert [(v["name"], v["dtype"], v["shape"]) for v in json.loads(about["outputs"])] == [
        ("mean", "float32", [3]),
        ("std", "float32", [3]),
    ]
    assert about["support"] == "levels256" and about["latent_dim"] == "3" and about["data"] == "digits"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_a_file_of_an_unconditional_model_has_the_names_of_its_datas_labels():
    trained = untrained()
    trained = trained._replace(facts=replace(trained.facts, class_names=tuple("abcdefghij")))
    _, model = exported(trained, "decoder")
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["classes"] == "0" and json.loads(about["class_names"]) == list("abcdefghij")


def test_a_network_that_looks_at_its_data_is_named(monkeypatch):
    class Branching(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.flatten(1) if x.sum() > 0 else -x.flatten(1))

    trained = untrained()
    trained.model.encoder = Branching(64, 6)
    with pytest.raises(
        ExportError, match="^encoder: Branching cannot be exported: it branches on the values"
    ) as caught:
        exported(trained, "encoder")
    assert "\n" not in str(caught.value)
    exported(trained, "decoder")


def test_a_network_for_one_size_of_batch_is_named():
    class Fixed(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x.reshape(5, 64))

    trained = untrained()
    trained.model.encoder = Fixed(64, 6)
    with pytest.raises(ExportError, match="^encoder: Fixed cannot be exported: its code fixes the number of examples"):
        programs.trace(programs.build("encoder", trained))


def test_a_file_that_differs_is_not_announced():
    trained = untrained()
    program, model = exported(trained, "decoder")
    images = checks.examples(trained, {"data_dir": None, "allow": None}, 5)
    run = onnx.runner(model)
    with pytest.raises(ExportError, match=r"decoder: exported, its image differs from the model's by 0\.01"):
        checks.check(program, lambda inputs: {n: v + 0.01 for n, v in run(inputs).items()}, images)
    with pytest.raises(ExportError, match="differs"):
        checks.check(program, lambda inputs: {n: v * np.nan for n, v in run(inputs).items()}, images)


def test_a_library_that_is_missing_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"^format=onnx needs onnxscript, .*: pip install 'vae-cli\[onnx\]'$"):
        onnx.require()
