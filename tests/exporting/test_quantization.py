"""What a quantization costs: the ELBO and PSNR of networks that onnxruntime runs."""

import math

import pytest
import torch

from tests.support.exporting import untrained
from vae_cli.build import parts
from vae_cli.evaluation.bounds import score
from vae_cli.exporting import checks, programs, quantization
from vae_cli.exporting.checks import run_module
from vae_cli.exporting.quantization import Quality, loss


def quality(trained, change=None):
    networks = {part: programs.build(part, trained, has_parameters=True) for part in ("encoder", "decoder")}
    runs = {part: (program, run_module(program)) for part, program in networks.items()}
    if change is not None:
        program, run = runs["decoder"]
        runs["decoder"] = (program, lambda inputs: {n: v + change * (n == "image") for n, v in run(inputs).items()})
    images = checks.examples(trained, {"data_dir": None, "allow": None}, 1000)
    return quantization.measure(trained, **runs, examples=images), images


@pytest.mark.parametrize(
    "overrides",
    [
        ["likelihood=discretized_logistic"],
        ["dataset.binarize=threshold", "posterior=full_normal", "prior=mixture_of_normals"],
        ["likelihood=laplace", "posterior=flow", "conditional=true", "prior=vampprior", "prior.components=5"],
    ],
)
def test_networks_that_are_not_quantized_have_the_elbo_of_the_evaluation(overrides):
    trained = untrained(*overrides)
    measured, images = quality(trained)
    split = parts.dataset(trained.settings).splits().test
    scores = score(trained.model, split, [10], seed=3)
    spread = float(scores.elbo.std()) / math.sqrt(len(split))
    assert abs(measured.elbo - float(scores.elbo.mean())) < 0.2 * spread + 0.3
    with torch.no_grad():
        shown = trained.model.likelihood.image(trained.model.reconstruct(images.x, images.y))
        psnr = -10 * (shown - images.x).square().flatten(1).mean(1).double().log10()
    assert measured.psnr == pytest.approx(float(psnr.mean()), abs=1e-3)


def test_a_worse_image_is_a_lower_psnr_and_leaves_the_elbo():
    trained = untrained("likelihood=normal")
    whole, worse = quality(trained)[0], quality(trained, change=5.0)[0]
    assert worse.psnr < whole.psnr - 1 and worse.elbo == whole.elbo


def test_a_posterior_without_a_known_density_has_no_elbo():
    assert loss(Quality(20.0, None), Quality(19.5, None)) == "PSNR 19.50 dB instead of 20.00 (-0.50)"
    assert loss(Quality(20.0, -90.0), Quality(19.5, -91.0)).endswith(
        "ELBO -91.00 nats per example instead of -90.00 (-1.00)"
    )
