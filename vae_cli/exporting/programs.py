"""The parts of a model as programs from arrays to arrays: preprocessing inside, nothing drawn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vae_cli.build.trained import Trained
from vae_cli.data import DataFacts
from vae_cli.distributions import FullNormal, LatentDistribution, Mixture
from vae_cli.distributions.pixels import Bits
from vae_cli.errors import ExportError, describe
from vae_cli.exporting.quiet import quiet
from vae_cli.models import Hierarchy, Model

PARTS = ("encoder", "decoder", "prior")
EXAMPLES = 5  # in the batch that is traced; 1 would be taken for a constant
PIXELS = {
    "levels256": ("uint8", "8-bit images, values 0 to 255"),
    "binary": ("uint8", "binary images, values 0 and 1; a gray image is made so by image > 127"),
    "bits": ("float32", "values 0 and 1, NaN where one is missing"),
    "unit": ("float32", "values in [0, 1]"),
    "real": ("float32", "values in the data's own units, NaN where one is missing"),
    "counts": ("float32", "counts, NaN where one is missing"),
    "mixed": ("float32", "the columns of a table, categories as ones among zeros, NaN where a value is missing"),
}
REASONS = {  # in torch's words, and in plain ones
    "data-dependent": "it branches on the values of its input (torch: data-dependent control flow)",
    "Constraints violated (batch)": "its code fixes the number of examples in a batch",
    "not supported for tensor subclasses": "it leaves torch, for numpy or plain numbers",
}
SHOWN = "the image that is shown, about in [0, 1]; its 8-bit image is round(255 * clip(image, 0, 1))"
EXPECTED = "the example that stands for p(x|z), in the data's own units; of categories their probabilities"

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Value:
    """An input or output of a program.

    Args:
        name: its name.
        dtype: such as `float32`.
        shape: of one example, without the batch dimension in front.
        meaning: in words.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    meaning: str

    def example(self, count: int) -> Tensor:
        """Return zeros of this form for so many examples."""
        return torch.zeros(count, *self.shape, dtype=getattr(torch, self.dtype))


class Program(nn.Module):
    """A part of a model as a function of named tensors, whose first dimension is the batch.

    Args:
        name: of the part.
        inputs: what `forward` takes, in order.
        meanings: of the outputs, by their names in order.
    """

    def __init__(self, name: str, inputs: list[Value], meanings: Mapping[str, str]) -> None:
        super().__init__()
        self.name, self.inputs, self._meanings = name, inputs, dict(meanings)

    @property
    def input_names(self) -> list[str]:
        return [value.name for value in self.inputs]

    @torch.no_grad()
    def outputs(self) -> list[Value]:
        """Return what `forward` gives."""
        result = self(**self.example())
        return [
            Value(name, str(value.dtype).removeprefix("torch."), tuple(value.shape[1:]), self._meanings.get(name, ""))
            for name, value in result.items()
        ]

    def example(self) -> Tensors:
        """Return inputs of a few examples, all zeros."""
        return {value.name: value.example(EXAMPLES) for value in self.inputs}

    def describe(self) -> dict[str, Any]:
        """Return inputs and outputs as plain data."""
        inputs, outputs = ([asdict(value) for value in values] for values in (self.inputs, self.outputs()))
        return {"part": self.name, "inputs": inputs, "outputs": outputs}


class Encoder(Program):
    """x → the mean and standard deviation of q(z|x), and the Cholesky factor of a full normal.

    Of a posterior that has none in closed form, such as a flow: x and base noise ε → z and log q(z|x).
    """

    def __init__(self, model: Model, facts: DataFacts) -> None:
        q, _ = model.example_distributions()
        self.has_moments = q.provides("moments")
        dtype, pixels = PIXELS["bits" if facts.support == "binary" and not facts.is_image else facts.support]
        inputs = [Value("x", dtype, tuple(facts.shape), pixels), *_label(model)]
        if self.has_moments:
            order = "" if model.is_flat else f", of each level by the means of the levels above; {_order(model)}"
            meanings = {
                "mean": f"the mean of q(z|x){order}",
                "std": f"the standard deviation of each dimension of q(z|x){order}",
                "scale_tril": "L, with z = mean + L @ noise a draw from q(z|x) for noise ~ N(0, I)",
            }
        else:
            text = "base noise ~ N(0, I); zeros give the code that stands for x"
            inputs.append(Value("noise", "float32", (model.noise_dim,), text))
            meanings = {"z": "the draw from q(z|x) that the noise makes", "log_prob": "log q(z|x) in nats"}
        super().__init__("encoder", inputs, meanings)
        self.model = _only(model, "encoder", "posterior", *_blocks(model, "prior", "posterior"))
        self.scale = 255.0 if facts.support == "levels256" else 1.0

    def forward(self, x: Tensor, label: Tensor | None = None, noise: Tensor | None = None) -> Tensors:
        return self.codes(x.float() / self.scale, label, noise)

    def pixels(self, x: Tensor) -> Tensor:
        """Return the input that stands for x in [0, 1]."""
        return (self.scale * x).round().byte() if self.inputs[0].dtype == "uint8" else x

    def codes(self, x: Tensor, label: Tensor | None = None, noise: Tensor | None = None) -> Tensors:
        """Return the outputs for x as the model takes it, in [0, 1]."""
        q = self.model.encode(x, label)
        if noise is not None:
            z, log_prob = q.rsample_and_log_prob(noise)
            return {"z": z, "log_prob": log_prob}
        mean, std = q.moments()
        return {"mean": mean, "std": std, **({"scale_tril": q.scale_tril} if isinstance(q, FullNormal) else {})}


class Decoder(Program):
    """z → the image that is shown and, if asked for, the parameters of p(x|z)."""

    def __init__(self, model: Model, facts: DataFacts, has_parameters: bool = False) -> None:
        text = "a latent vector" if model.is_flat else f"a latent vector: {_order(model)}"
        latent = Value("z", "float32", (model.latent_dim,), text)
        super().__init__("decoder", [latent, *_label(model)], {"image": SHOWN if facts.is_image else EXPECTED})
        self.has_parameters = has_parameters
        if has_parameters:
            with torch.no_grad():
                values = _of_values(model.decode(latent.example(1), *_labels(model)))
            kind = type(values).__name__
            self._meanings |= dict.fromkeys(values.arg_constraints, f"a parameter of p(x|z), a {kind} of each value")
        self.model = _only(model, "decoder", "likelihood", *_blocks(model))

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensors:
        p = self.model.decode(z, label)
        outputs = {"image": self.model.likelihood.image(p)}
        if self.has_parameters:
            outputs |= parameters(p)
        return outputs


class PriorProgram(Program):
    """Base noise ε → z from the prior; a mixture, a VampPrior among them, keeps its components as constants."""

    def __init__(self, model: Model, facts: DataFacts) -> None:
        text = "base noise ~ N(0, I)"
        with torch.no_grad():
            labels = torch.arange(model.classes) if model.classes else None
            prior, top = model.latent_prior(labels), model.top_prior(labels)
        self.is_labeled = labels is not None and bool(prior.batch_shape)
        if isinstance(top, Mixture):
            first = model.latent_dim - model.prior.latent_dim
            which = "the first number" if first == 0 else f"number {first}, counted from 0,"
            text += f"; {which} chooses the component, leave it as it is where a temperature scales the others"
        noise = Value("noise", "float32", (model.prior_noise_dim,), text)
        inputs = [noise, *(_label(model) if self.is_labeled else [])]
        meaning = "the latent vector that the noise makes" + ("" if model.is_flat else f": {_order(model)}")
        super().__init__("prior", inputs, {"z": meaning})
        self.mixture = MixtureDraws(top) if isinstance(top, Mixture) else None
        used = [] if self.mixture is not None else _used_by_prior(model, labels)
        parts = ("prior", "posterior") if "encoder" in used else ("prior",)  # of each level
        self.model = _only(model, *used, *_blocks(model, *parts))

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensors:
        if self.mixture is None:
            return {"z": self.model.sample_latents(noise, 1.0, label)}
        if not isinstance(self.model, Hierarchy):
            return {"z": self.mixture(noise, label)}
        *below, top = self.model.split(noise)
        z = torch.cat([*below, self.mixture(top, label if self.mixture.is_labeled else None)], dim=-1)
        return {"z": self.model.complete(z, 1, noise, label)}


@torch.no_grad()
def _used_by_prior(model: Model, labels: Tensor | None) -> list[str]:
    """Return the parts of a model that its prior needs: the encoder's too where it is made of posteriors."""
    parts = ["prior"]

    def encode(*arguments: Tensor) -> LatentDistribution:
        parts[1:] = ["encoder", "posterior"]
        return model.encode_top(*arguments)

    model.prior(encode, labels)
    return parts


class MixtureDraws(nn.Module):
    """Draws from a mixture whose components are computed already, in operations that every exporter has.

    Args:
        mixture: of batch shape () or, with a mixture for each label, (classes,).
    """

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        if not mixture.components.provides("select"):
            raise ExportError(f"prior: {type(mixture.components).__name__} has no select(index)")
        self.components, self.is_labeled = mixture.components, bool(mixture.batch_shape)
        self.register_buffer("steps", mixture.log_weights.exp().cumsum(-1))

    steps: Tensor

    def forward(self, noise: Tensor, label: Tensor | None = None) -> Tensor:
        uniform = torch.special.ndtr(noise[:, :1]) * self.steps[-1]
        chosen = (self.steps < uniform).sum(-1).clamp(max=len(self.steps) - 1)
        if label is None:
            return self.components.select(chosen).rsample_and_log_prob(noise[:, 1:])[0]
        every, _ = self.components.select(label).rsample_and_log_prob(noise[:, 1:].unsqueeze(1))
        index = chosen[:, None, None].expand(-1, 1, every.shape[-1])
        return every.gather(1, index).squeeze(1)


def build(part: str, trained: Trained, has_parameters: bool = False) -> Program:
    """Return a part of a model as a program on the CPU, in float32 whatever the precision of the training.

    Raises:
        ExportError: if it cannot be one.
    """
    from vae_cli.exporting.couplings import fix_halves

    model = copy.deepcopy(trained.model).cpu().eval().requires_grad_(False)
    model.precision = torch.float32
    fix_halves(model)
    if part == "decoder":
        return Decoder(model, trained.facts, has_parameters)
    return {"encoder": Encoder, "prior": PriorProgram}[part](model, trained.facts)


def trace(program: Program) -> torch.export.ExportedProgram:
    """Return a program as torch.export records it, for batches of any size.

    Raises:
        ExportError: naming the part and the reason, if it cannot be recorded.
    """
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch} for name in program.input_names}
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(program, (), program.example(), dynamic_shapes=shapes)
    except Exception as error:  # of many kinds, none of them documented
        raise ExportError(f"{program.name}: {reason(program, error)}") from error


def reason(program: Program, error: Exception) -> str:
    """Return why a part cannot be exported, with the class of its network where that is not this package's."""
    network = getattr(getattr(program, "model", None), program.name, None)
    is_known = network is None or isinstance(network, nn.Identity) or type(network).__module__.startswith("vae_cli.")
    text = describe(error)
    words = next((words for phrase, words in REASONS.items() if phrase in text), text)
    return (f"{type(network).__name__} " if not is_known else "") + f"cannot be exported: {words}"


def parameters(p: Distribution) -> Tensors:
    """Return the parameters of p(x|z) by their names."""
    values = _of_values(p)
    return {name: getattr(values, name) for name in values.arg_constraints}


def with_parameters(p: Distribution, values: Mapping[str, Tensor]) -> Distribution:
    """Return a distribution of the kind of p with other parameters."""
    if isinstance(p, Bits):
        return Bits(values["logits"], p.dims)
    of_values = _of_values(p)
    family: Callable[..., Distribution] = type(of_values)
    changed = family(**values)
    return changed if of_values is p else Independent(changed, len(p.event_shape), validate_args=False)


def _of_values(p: Distribution) -> Distribution:
    return p.base_dist if isinstance(p, Independent) else p


def _only(model: Model, *parts: str) -> Model:
    """Return a model without its other parts, whose weights would be exported too."""
    for name, _ in list(model.named_children()):
        if name not in (*parts, "preprocessing"):
            setattr(model, name, nn.Identity())
    return model


def _blocks(model: Model, *kept: str) -> list[str]:
    """Return the name of a hierarchy's levels, without those of their distributions that are not kept."""
    if not isinstance(model, Hierarchy):
        return []
    for block in model.blocks:
        for name in {"prior", "posterior"} - set(kept):
            if getattr(block, name) is not None:
                setattr(block, name, nn.Identity())
    return ["blocks"]


def _order(model: Model) -> str:
    """Return the words for where the levels of a hierarchy stand in z."""
    sizes = ", ".join(f"{size} of {name}" for name, size in model.level_sizes.items())
    return f"{sizes}, from the data up"


def _label(model: Model) -> list[Value]:
    return [Value("label", "int64", (), f"the label's number, 0 to {model.classes - 1}")] if model.classes else []


def _labels(model: Model) -> list[Tensor]:
    return [torch.zeros(1, dtype=torch.long)] if model.classes else []
