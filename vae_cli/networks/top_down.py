"""The parts of top-down models: blocks of one level, bottom-up encoders, and the layers that give the output.

A level's width is that of a vector (N, W) or of a feature map (N, W, H, W'); its layers are linear or convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.networks.layers import ACTIVATIONS, Activation, DoublingOutput, FullOutput, Shape

START_LOG_SCALE = -1.5  # of q(z|x), below that of p(z) where it is relative to it
Layer = Callable[[int, int], nn.Module]  # from one width to another


def conv3(before: int, after: int) -> nn.Conv2d:
    """Return a 3×3 convolution that keeps the size."""
    return nn.Conv2d(before, after, 3, padding=1)


def conv1(before: int, after: int) -> nn.Conv2d:
    """Return a 1×1 convolution."""
    return nn.Conv2d(before, after, 1)


def scaled(layer: nn.Module, factor: float) -> nn.Module:
    """Return a linear layer or a convolution with its weights multiplied and its bias at 0."""
    with torch.no_grad():
        layer.weight.mul_(factor)  # type: ignore[operator]
        layer.bias.zero_()  # type: ignore[operator]
    return layer


class Residual(nn.Module):
    """h → h + f(h), with f `depth` times an activation and a layer, the last of them scaled.

    Args:
        width: of h.
        layer: from one width to another.
        activation: before each layer.
        depth: number of layers.
        scale: of the last layer's weights at the start; with 0 the block starts as the identity.
    """

    def __init__(self, width: int, layer: Layer, activation: Activation, depth: int = 2, scale: float = 0.0) -> None:
        super().__init__()
        layers = [part for _ in range(depth) for part in (ACTIVATIONS[activation](), layer(width, width))]
        scaled(layers[-1], scale)
        self.layers = nn.Sequential(*layers)

    def forward(self, h: Float[Tensor, "n w *size"]) -> Float[Tensor, "n w *size"]:
        return h + self.layers(h)


class ConditionalPrior(nn.Module):
    """p(z_l | z_{>l}) = N(μ(h), diag σ(h)²) from the state h, at the start N(0, I).

    Args:
        width: of h.
        channels: of z_l, with the size of h.
        layer, output: from one width to another; inside, and last.
        activation: before each layer.
    """

    def __init__(self, width: int, channels: int, layer: Layer, output: Layer, activation: Activation) -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        self.layers = nn.Sequential(act(), layer(width, width), act(), scaled(output(width, 2 * channels), 0.0))

    def forward(self, h: Float[Tensor, "n w *size"]) -> Float[Tensor, "n c2 *size"]:
        """Return μ and the raw log σ, side by side."""
        return self.layers(h)


class ConditionalPosterior(nn.Module):
    """q(z_l | z_{>l}, x) = N(μ, diag σ²) from the state h and the encoder's features of this level.

    Args:
        width: of h and of the features.
        channels: of z_l, with the size of h.
        layer, output: from one width to another; inside, and last.
        activation: before each layer.
    """

    def __init__(self, width: int, channels: int, layer: Layer, output: Layer, activation: Activation) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[activation]()
        self.input, self.output = layer(width, width), scaled(output(width, 2 * channels), 0.5)

    def forward(
        self, h: Float[Tensor, "#n w *size"], features: Float[Tensor, "n w *size"]
    ) -> Float[Tensor, "n c2 *size"]:
        """Return μ and the raw log σ, side by side."""
        return self.output(self.activation(self.input(self.activation(h)) + features))


class TopDownBlock(nn.Module):
    """One level of a hierarchy: from the state of the levels above to p(z_l | z_{>l}) and q(z_l | z_{>l}, x), and with
    z_l to the state of the levels below.

    R. Child, Very Deep VAEs Generalize Autoregressive Models, 2021.

    Args:
        width: of the state.
        latent_shape: of z_l: (D,) beside a state of vectors, (C, H, W) beside maps.
        activation: of all layers.
        depth: layers of the residual block behind z_l.
        scale: of the weights that add to the state, which keeps its size over many levels.
        enter: from the state above, which has another width or size.
        is_top: there is no state above: p(z_l) is another module's.
        is_relative: the posterior is given in units of the prior.
    """

    def __init__(
        self,
        width: int,
        latent_shape: Shape,
        activation: Activation,
        depth: int,
        scale: float,
        enter: nn.Module | None = None,
        is_top: bool = False,
        is_relative: bool = True,
    ) -> None:
        super().__init__()
        self.latent_shape, self.is_relative = tuple(latent_shape), is_relative and not is_top
        layer, output = (nn.Linear, nn.Linear) if len(latent_shape) == 1 else (conv3, conv1)
        channels = latent_shape[0]
        self.enter = nn.Identity() if enter is None else enter
        self.prior = None if is_top else ConditionalPrior(width, channels, layer, output, activation)
        self.posterior = ConditionalPosterior(width, channels, layer, output, activation)
        with torch.no_grad():
            self.posterior.output.bias[channels:] = START_LOG_SCALE  # type: ignore[operator]
        self.latent = scaled(output(channels, width), scale)
        self.residual = Residual(width, layer, activation, depth, scale)

    @property
    def latent_dim(self) -> int:
        """The dimensions of z_l."""
        return math.prod(self.latent_shape)

    def forward(self, h: Float[Tensor, "#n w *size"], z: Float[Tensor, "n d"]) -> Float[Tensor, "n w *size"]:
        """Return the state below."""
        return self.residual(h + self.latent(z.unflatten(1, self.latent_shape)))


class LadderEncoder(nn.Module):
    """Examples (N, *shape) → the features of each level, (N, W_1) … (N, W_L).

    Args:
        shape: of an example.
        widths: W_1 … W_L.
        activation: of all layers.
        depth: layers of each level.
    """

    def __init__(self, shape: Shape, widths: Sequence[int], activation: Activation, depth: int) -> None:
        super().__init__()
        sizes = [math.prod(shape), *widths]
        self.inputs = nn.ModuleList(nn.Linear(before, after) for before, after in zip(sizes, sizes[1:]))
        self.levels = nn.ModuleList(Residual(width, nn.Linear, activation, depth) for width in widths)
        self.outputs = nn.ModuleList(nn.Linear(width, width) for width in widths)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Float[Tensor, "n *shape"]) -> tuple[Tensor, ...]:
        h, features = x.flatten(1), []
        for number, (enter, level, output) in enumerate(zip(self.inputs, self.levels, self.outputs)):
            h = level(enter(self.activation(h) if number else h))
            features.append(output(self.activation(h)))
        return tuple(features)


class MapEncoder(nn.Module):
    """Images (N, C, H, W) → the features of each level, feature maps from the largest size to 1×1.

    Args:
        shape: (C, H, W).
        channels: at each size, the last one at 1×1.
        sizes: (H, W) of each size.
        blocks: levels at each size.
        stem: stride of the first convolution.
        activation: of all layers.
        depth: residual blocks at each size above 1×1.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        channels: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        blocks: Sequence[int],
        stem: int,
        activation: Activation,
        depth: int,
    ) -> None:
        super().__init__()
        *maps, width = channels
        self.inputs, self.levels, self.outputs = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for number, (before, after) in enumerate(zip([shape[0], *maps], maps)):
            stride = 2 if number else stem
            self.inputs.append(nn.Conv2d(before, after, 3, stride, padding=1))
            self.levels.append(nn.Sequential(*(Residual(after, conv3, activation) for _ in range(depth))))
            self.outputs.append(conv3(after, blocks[number] * after) if blocks[number] else nn.Identity())
        self.inputs.append(nn.Linear(maps[-1] * math.prod(sizes[-2]), width))
        self.levels.append(Residual(width, nn.Linear, activation))
        self.outputs.append(nn.Linear(width, blocks[-1] * width))
        self.blocks, self.activation = tuple(blocks), ACTIVATIONS[activation]()

    def forward(self, x: Float[Tensor, "n c h w"]) -> tuple[Tensor, ...]:
        h, features = x, []
        for number, (enter, level, output) in enumerate(zip(self.inputs, self.levels, self.outputs)):
            h = self.activation(h) if number else h
            h = level(enter(h.flatten(1) if number == len(self.inputs) - 1 else h))
            if self.blocks[number]:
                features += output(self.activation(h)).chunk(self.blocks[number], dim=1)
        return tuple(features)


class FromVector(nn.Module):
    """A state of vectors (N, W) → one of maps (N, C, H, W'): a linear map, at the start without a bias and with values
    of the state's size."""

    def __init__(self, width: int, channels: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(width, channels * math.prod(size)), (channels, *size)
        with torch.no_grad():
            self.linear.weight.normal_(std=width**-0.5)
            self.linear.bias.zero_()

    def forward(self, h: Float[Tensor, "n w"]) -> Float[Tensor, "n c hh ww"]:
        return self.linear(h).unflatten(1, self.shape)


class Enlarge(nn.Module):
    """A state of maps at one size → one at the next, twice as large or one less: a linear map whose channels become the
    pixels of 2×2 squares, at the start four equal ones."""

    def __init__(self, before: int, after: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv, self.size = conv1(before, 4 * after), size
        with torch.no_grad():
            kernel = nn.init.orthogonal_(torch.empty(after, before, device=self.conv.weight.device))
            self.conv.weight.copy_(kernel.repeat_interleave(4, dim=0).unflatten(1, (before, 1, 1)))
            self.conv.bias.zero_()  # type: ignore[union-attr]

    def forward(self, h: Float[Tensor, "n c h w"]) -> Float[Tensor, "n cc hh ww"]:
        height, width = self.size
        return nn.functional.pixel_shuffle(self.conv(h), 2)[..., :height, :width]


def changed_width(before: int, after: int) -> nn.Module | None:
    """Return a linear map from a state of vectors to one of another width, at the start orthogonal and without a bias;
    None for one of the same width."""
    if before == after:
        return None
    layer = nn.Linear(before, after)
    nn.init.orthogonal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class VectorOutput(nn.Module):
    """The state below z1, (N, W) → likelihood parameters (N, *out_shape).

    Args:
        width: of the state.
        out_shape: of the likelihood's parameters.
        activation: before the one layer.
    """

    def __init__(self, width: int, out_shape: tuple[int, ...], activation: Activation) -> None:
        super().__init__()
        self.out_shape = tuple(out_shape)
        self.activation, self.linear = ACTIVATIONS[activation](), nn.Linear(width, math.prod(out_shape))

    def forward(self, h: Float[Tensor, "n w"]) -> Float[Tensor, "n *shape"]:
        return self.linear(self.activation(h)).unflatten(-1, self.out_shape)

    @torch.no_grad()
    def start_at(self, output: Float[Tensor, "*shape"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.linear.bias.copy_(output.flatten())


class MapOutput(nn.Module):
    """The state below z1, (N, W, H', W') → likelihood parameters (N, C', H, W).

    Args:
        width: of the state, where it is largest.
        out_shape: (C', H, W).
        stem: by how much the output is larger than the state.
        activation: of all layers.
        scale: of the weights that add to the state.
        enter: layers below z1 where the largest maps have no levels.
    """

    def __init__(
        self,
        width: int,
        out_shape: tuple[int, int, int],
        stem: int,
        activation: Activation,
        scale: float,
        enter: Sequence[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.enter = nn.Sequential(*enter)
        self.residual, self.activation = Residual(width, conv3, activation, 2, scale), ACTIVATIONS[activation]()
        self.output = DoublingOutput(width, out_shape) if stem == 2 else FullOutput(width, out_shape)

    def forward(self, h: Float[Tensor, "n c h w"]) -> Float[Tensor, "n cc hh ww"]:
        return self.output(self.activation(self.residual(self.enter(h))))

    def start_at(self, output: Float[Tensor, "cc h w"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.output.start_at(output)
