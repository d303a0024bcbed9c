"""Smaller ONNX files: weights and activations in fewer bits, and what that costs."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from vae_cli.build.trained import Trained
from vae_cli.distributions import DiagonalNormal, FullNormal, LatentDistribution
from vae_cli.errors import ExportError
from vae_cli.evaluation.bounds import TOGETHER
from vae_cli.exporting import checks
from vae_cli.exporting.checks import Arrays, Examples, Run
from vae_cli.exporting.programs import Program, with_parameters
from vae_cli.exporting.quiet import quiet
from vae_cli.noise import BLOCK

if TYPE_CHECKING:
    from onnx import ModelProto

Network = tuple[Program, Run]
Kind = Literal["int8", "float16"]

CALIBRATED = 200  # images, at most, by which the ranges of activations are found
MULTIPLIED = ["MatMul", "Gemm", "Conv", "ConvTranspose"]  # the operations that become int8
DRAWS = 10  # of z per image for the ELBO


@dataclass(frozen=True)
class Quality:
    """How well encoder and decoder explain images.

    Args:
        psnr: mean peak signal-to-noise ratio of reconstructions from the mean of q(z|x), or from noise of zeros where
            it has no mean, in decibels.
        elbo: mean evidence lower bound in nats per example, by draws; None of a posterior whose density the exported
            moments do not give.
    """

    psnr: float
    elbo: float | None


def quantize(model: ModelProto, kind: Kind, calibration: Iterable[Arrays]) -> ModelProto:
    """Return a model with weights and activations in fewer bits; inputs and outputs keep their types.

    `float16` converts everything. `int8` converts the products and convolutions: weights by channel, activations by
    the ranges that they have on the calibration's inputs.

    Raises:
        ExportError: if it cannot be done.
    """
    from onnx import checker

    try:
        with quiet():
            quantized = _float16(model) if kind == "float16" else _int8(model, calibration)
        checker.check_model(quantized)
    except Exception as error:  # of many kinds, none of them documented
        raise ExportError(f"quantize={kind}: {type(error).__name__}: {error}") from error
    return quantized


def _float16(model: ModelProto) -> ModelProto:
    from onnx import ModelProto
    from onnxruntime.transformers.float16 import convert_float_to_float16

    copied = ModelProto()
    copied.CopyFrom(model)
    converted = convert_float_to_float16(copied, keep_io_types=True, disable_shape_infer=False)
    _sort(converted)
    return converted


def _sort(model: ModelProto) -> None:
    """Bring the nodes into an order in which each stands behind those that it needs: conversion appends casts."""
    waiting, ordered = list(model.graph.node), []
    ready = {value.name for value in (*model.graph.input, *model.graph.initializer)} | {""}
    while waiting:
        first = next((n for n, node in enumerate(waiting) if ready.issuperset(node.input)), 0)
        node = waiting.pop(first)
        ready |= set(node.output)
        ordered.append(node)
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def _int8(model: ModelProto, calibration: Iterable[Arrays]) -> ModelProto:
    import onnx as library
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(calibration)

        def get_next(self) -> Any:
            return next(self.batches, None)

    with tempfile.TemporaryDirectory() as folder:
        source, prepared, result = (Path(folder) / f"{name}.onnx" for name in ("source", "prepared", "result"))
        library.save(model, source)
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        quantize_static(
            str(prepared),
            str(result),
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=MULTIPLIED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return library.load(result)


def calibration(program: Program, examples: Examples) -> Iterable[Arrays]:
    """Yield inputs of a program, some images at a time."""
    for some in checks.chunks(min(CALIBRATED, len(examples))):
        y = None if examples.y is None else examples.y[some]
        inputs = checks.inputs(program, examples.x[some], y, examples.z[some])
        yield {name: value.numpy() for name, value in inputs.items()}


@torch.no_grad()
def measure(trained: Trained, encoder: Network, decoder: Network, examples: Examples) -> Quality:
    r"""Return how well networks that onnxruntime runs explain images, with the model's own prior and likelihood:

        ELBO = mean over images and K draws z ~ q(z|x) of log p(x|z) + log p(z) − log q(z|x)

    q(z|x) and the parameters of p(x|z) come from the networks, the densities from torch in float32; the same noise is
    used for all networks.

    Args:
        trained: the model.
        encoder: as a program and as run.
        decoder: the same, with the parameters of p(x|z) among its outputs.
        examples: images.
    """
    squares, elbos = [], []
    draws = DRAWS if has_density(trained) else 0
    together = max(1, min(BLOCK, TOGETHER // math.prod(trained.model.likelihood.output_shape)))
    for some in checks.chunks(len(examples), together):
        x, y = examples.x[some], None if examples.y is None else examples.y[some]
        prior = trained.model.latent_prior(y)
        for draw in range(draws + 1):  # the first one for the reconstruction
            z, log_q = _codes(trained, encoder, x, y, draw, some.start)
            outputs = _run(decoder, {"z": z, "label": y})
            if draw == 0:
                squares.append((outputs["image"] - x).square().flatten(1).mean(1))
                continue
            form = trained.model.decode(z[:1], None if y is None else y[:1])
            p = with_parameters(form, {name: v for name, v in outputs.items() if name != "image"})
            elbos.append(p.log_prob(x) + prior.log_prob(z) - log_q)
    psnr = -10 * torch.cat(squares).double().clamp(min=1e-12).log10()
    return Quality(float(psnr.mean()), float(torch.cat(elbos).double().mean()) if elbos else None)


def has_density(trained: Trained) -> bool:
    """Return whether the outputs of the encoder give log q(z|x)."""
    q, _ = trained.model.example_distributions()
    return isinstance(q, (DiagonalNormal, FullNormal)) or not q.provides("moments")


def _codes(
    trained: Trained, encoder: Network, x: Tensor, y: Tensor | None, draw: int, start: int
) -> tuple[Tensor, Tensor]:
    """Return z (B, D) and log q(z|x); draw 0 is of noise of zeros."""
    program, run = encoder
    epsilon = checks.base_noise(len(x), trained.model.noise_dim, draw, start) * (draw > 0)
    given = checks.inputs(program, x, y)
    if "noise" in given:
        given["noise"] = epsilon
    outputs = _run((program, run), given)
    if "log_prob" in outputs:
        return outputs["z"], outputs["log_prob"]
    q: LatentDistribution
    if "scale_tril" in outputs:
        q = FullNormal(outputs["mean"], outputs["scale_tril"])
    else:
        q = DiagonalNormal(outputs["mean"], outputs["std"].log())
    return q.rsample_and_log_prob(epsilon)


def _run(network: Network, given: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    program, run = network
    arrays = {name: given[name].numpy() for name in program.input_names}  # type: ignore[union-attr]
    return {name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in run(arrays).items()}


def loss(full: Quality, small: Quality) -> str:
    """Return the words about what a quantization costs."""
    words = f"PSNR {small.psnr:.2f} dB instead of {full.psnr:.2f} ({small.psnr - full.psnr:+.2f})"
    if small.elbo is None or full.elbo is None:
        return words
    return f"{words}, ELBO {small.elbo:.2f} nats per example instead of {full.elbo:.2f} ({small.elbo - full.elbo:+.2f})"
