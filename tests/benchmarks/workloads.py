"""What is timed of ours, and the floors: the products of a step or of a score alone, of the same sizes and types."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from itertools import count

import torch
from timing import interleaved
from torch import Tensor, nn

from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data import Data, DataFacts, Split
from vae_cli.errors import UserError
from vae_cli.training import loop
from vae_cli.training.state import TrainingState

NETWORKS = ["latent_dim=20", "encoder=mlp", "decoder=mlp"]  # 784-400-20-400-784
MLP = [*NETWORKS, "likelihood=bernoulli"]
MLP_SIZES = [(784, 400), (400, 40), (20, 400), (400, 784)]


def mnist(binarize: str = "dynamic") -> Data:
    """MNIST if it can be loaded, else random images with its mean."""
    try:
        settings = compose.compose("train", ["dataset=mnist", f"dataset.binarize={binarize}"])
        return parts.dataset(settings).splits()
    except UserError as error:
        print(f"MNIST cannot be loaded ({error}): random images instead")
    drawn = torch.rand(60_000, 1, 28, 28) < 0.13
    is_gray = binarize == "none"
    scale = 1.0 if binarize == "static" else 255.0
    images = drawn.to(torch.uint8) * int(scale)
    train, test = (Split(part, None, scale, dynamic=binarize == "dynamic") for part in images.split([54_000, 6_000]))
    return Data(train, test, test, DataFacts("mnist", (1, 28, 28), "levels256" if is_gray else "binary", 0, len(train)))


def colored(images: int = 10_000, side: int = 32) -> Data:
    """Random 8-bit images 3×32×32."""
    split = Split(torch.randint(0, 256, (images, 3, side, side), dtype=torch.uint8), None, 255.0)
    return Data(split, None, split, DataFacts("colored", (3, side, side), "levels256", 0, images))


def training(data: Data, device: torch.device, *overrides: str) -> TrainingState:
    """A training, of which `steps` takes steps."""
    settings = parts.with_choices(compose.compose("train", ["batch_size=128", *overrides]), data.facts)
    return TrainingState(settings, data, device)


def steps(trained: TrainingState) -> Callable[[], None]:
    """One training step per call, as `training.loop.fit` takes it."""

    def batches() -> Iterator[tuple[int, int, tuple[Tensor, Tensor | None]]]:
        for epoch in count():
            for number, batch in trained.batches.epoch(epoch):
                yield epoch, number, batch

    stream = batches()

    def step() -> None:
        epoch, number, batch = next(stream)
        drawn = trained.noise(len(batch[0]), epoch, number)
        loss, sums = trained.loss(batch, drawn)
        loss.backward()
        loop.step(trained, loss, sums)

    return step


def synchronized(action: Callable[[], object], calls: int, device: torch.device) -> Callable[[], None]:
    """So many calls, until the device has done them."""

    def run() -> None:
        for _ in range(calls):
            action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return run


def products(
    batch_size: int, dtype: torch.dtype, device: torch.device, sizes: Sequence[tuple[int, int]] = MLP_SIZES
) -> Callable[[], None]:
    """A training step's matrix products per call: three per layer, two for the first, whose input has no gradient."""
    weights = [torch.randn(n, m, dtype=dtype, device=device) for m, n in sizes]
    inputs = [torch.randn(batch_size, m, dtype=dtype, device=device) for m, _ in sizes]
    outputs = [torch.randn(batch_size, n, dtype=dtype, device=device) for _, n in sizes]

    def multiply() -> None:
        for layer, (w, x, g) in enumerate(zip(weights, inputs, outputs)):
            x @ w.T
            g.T @ x
            if layer:
                g @ w

    return multiply


def forward_products(rows: int, sizes: Sequence[tuple[int, int]], device: torch.device) -> Callable[[], None]:
    """A decoder's matrix products for so many latent vectors per call."""
    weights = [torch.randn(n, m, device=device) for m, n in sizes]
    inputs = [torch.randn(rows, m, device=device) for m, _ in sizes]

    def multiply() -> None:
        for w, x in zip(weights, inputs):
            x @ w.T

    return multiply


def layers_alone(trained: TrainingState) -> Callable[[], None]:
    """Per call every linear and convolutional layer of the networks, forth and back, on inputs of a real step."""
    found: list[tuple[nn.Module, Tensor]] = []
    model = trained.model
    kinds = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    hooks = [
        module.register_forward_hook(lambda layer, given, _: found.append((layer, given[0].detach())))
        for module in model.modules()
        if isinstance(module, kinds)
    ]
    _, batch = next(trained.batches.epoch(0))
    model.evidence(batch[0], trained.noise(len(batch[0]), 0, 0))
    for hook in hooks:
        hook.remove()
    first = found[0][0]
    inputs = [(layer, given.clone().requires_grad_(layer is not first)) for layer, given in found]
    device = batch[0].device.type

    def run() -> None:
        for layer, given in inputs:
            with torch.autocast(device, dtype=model.precision, enabled=model.precision is not torch.float32):
                output = layer(given)
            wanted = [p for p in (given, *layer.parameters()) if p.requires_grad]
            torch.autograd.grad(output, wanted, torch.ones_like(output))

    return run


def rate(device: torch.device, dtype: torch.dtype, side: int = 4096) -> float:
    """Operations per second of large products, measured."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = interleaved({"product": synchronized(lambda: a @ b, 5, device)}, rounds=5)["product"]
    return 5 * 2 * side**3 / statistics.median(times)


def operations(step: Callable[[], object]) -> int:
    """Multiplications and additions of one step's products and convolutions, counted by torch."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()
