"""What a user might take instead: pythae, and the loop that textbooks show."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from workloads import synchronized

# It is imported where it is used, in processes of its own: what it imports keeps torch from compiling beside it.
HAVE_PYTHAE = find_spec("pythae") is not None
HAVE_CAREAMICS = find_spec("careamics") is not None


def pythae_model() -> Any:
    """pythae's VAE with 784-400-20-400-784."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Sequential(nn.Linear(784, 400), nn.ReLU())
            self.loc, self.log_variance = nn.Linear(400, 20), nn.Linear(400, 20)

        def forward(self, x: Tensor) -> Any:
            h = self.hidden(x.flatten(1))
            return ModelOutput(embedding=self.loc(h), log_covariance=self.log_variance(h))

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(20, 400), nn.ReLU(), nn.Linear(400, 784), nn.Sigmoid())

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.layers(z).unflatten(-1, (1, 28, 28)))

    settings = VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    return VAE(settings, encoder=Encoder(), decoder=Decoder())


class Pythae:
    """pythae's trainer on images (N, 1, 28, 28), 0 or 1; one `epoch` per call."""

    def __init__(self, images: Tensor, batch_size: int, device: torch.device) -> None:
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        self.model = pythae_model()
        settings = BaseTrainerConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch_size,
            num_epochs=1,
            learning_rate=1e-3,
            no_cuda=device.type == "cpu",
        )
        self.trainer = BaseTrainer(self.model, BaseDataset(images, torch.zeros(len(images))), training_config=settings)
        self.trainer.prepare_training()
        self.done = 0

    def epoch(self) -> None:
        self.done += 1
        self.trainer.train_step(self.done)

    @torch.no_grad()
    def elbo(self, images: Tensor) -> float:
        """Of the model as it is, in nats per example."""
        self.model.eval()
        device = next(self.model.parameters()).device
        losses = [self.model({"data": part.to(device)}).loss.item() * len(part) for part in images.split(1000)]
        return -sum(losses) / len(images)


def pythae_epoch(images: Tensor, batch_size: int, device: str) -> Callable[[], None]:
    """One epoch of pythae's trainer per call."""
    return Pythae(images, batch_size, torch.device(device)).epoch


def pythae_elbo(train: Tensor, test: Tensor, batch_size: int, device: str, epochs: int) -> Callable[[], float]:
    """The test ELBO of pythae's model after so many epochs."""

    def run() -> float:
        peer = Pythae(train, batch_size, torch.device(device))
        for _ in range(epochs):
            peer.epoch()
        return peer.elbo(test)

    return run


def textbook_steps(images: Tensor, batch_size: int, device: str, calls: int) -> Callable[[], None]:
    """So many steps of the textbook's loop per call."""
    place = torch.device(device)
    return synchronized(textbook(images, batch_size, place), calls, place)


def nll(images: Tensor, draws: int) -> Callable[[], object]:
    """pythae's log-likelihood of the images per call."""
    model = pythae_model().eval()
    return torch.no_grad()(lambda: float(model.get_nll(images, n_samples=draws, batch_size=draws)))


def torchvision_mnist(images: Tensor) -> torch.utils.data.Dataset:
    """torchvision's own MNIST, over files that hold these images (N, 1, 28, 28) in bytes."""
    from torchvision import datasets, transforms

    folder = Path(tempfile.mkdtemp()) / "MNIST" / "raw"
    folder.mkdir(parents=True)
    count = len(images)
    for name in ("train", "t10k"):
        head = np.array([0x803, count, 28, 28], dtype=">i4").tobytes()
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.numpy().tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            np.array([0x801, count], dtype=">i4").tobytes() + bytes(count)
        )
    return datasets.MNIST(folder.parent.parent, transform=transforms.ToTensor())


class Textbook(nn.Module):
    """784-400-20-400-784 with the binary cross-entropy of gray pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.loc, self.log_variance = nn.Linear(784, 400), nn.Linear(400, 20), nn.Linear(400, 20)
        self.widen, self.output = nn.Linear(20, 400), nn.Linear(400, 784)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.hidden(x))
        loc, log_variance = self.loc(h), self.log_variance(h)
        z = loc + torch.exp(0.5 * log_variance) * torch.randn_like(loc)
        reconstruction = torch.sigmoid(self.output(functional.relu(self.widen(z))))
        error = functional.binary_cross_entropy(reconstruction, x, reduction="sum")
        return error - 0.5 * torch.sum(1 + log_variance - loc.pow(2) - log_variance.exp())


def textbook(images: Tensor, batch_size: int, device: torch.device) -> Callable[[], None]:
    """One step of the textbook's loop per call: a DataLoader with ToTensor, Adam, and `loss.item()` at each step."""
    loader = torch.utils.data.DataLoader(torchvision_mnist(images), batch_size=batch_size, shuffle=True, drop_last=True)
    model = Textbook().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    total = 0.0

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    stream = batches()

    def step() -> None:
        nonlocal total
        x, _ = next(stream)
        optimizer.zero_grad()
        loss = model(x.to(device).view(-1, 784))
        loss.backward()
        total += loss.item()
        optimizer.step()

    return step


def image_folder(path: Path, batch_size: int, workers: int) -> Iterator[Tensor]:
    """One epoch over torchvision's ImageFolder, read by so many workers."""
    from torchvision import datasets, transforms

    data = datasets.ImageFolder(str(path), transforms.ToTensor())
    loader = torch.utils.data.DataLoader(data, batch_size=batch_size, shuffle=True, num_workers=workers)
    return (x for x, _ in loader)


def careamics_ladder() -> nn.Module:
    """CAREamics' ladder VAE with four levels and 1.7 million parameters, for 32×32 pixels.

    Its network alone is imported, without what its trainer and its files of microscopes need.
    """
    found = find_spec("careamics")
    assert found is not None and found.submodule_search_locations is not None
    folder = Path(found.submodule_search_locations[0])
    for name in ("careamics", "careamics.config", "careamics.models", "careamics.models.lvae"):
        module = ModuleType(name)
        module.__path__ = [str(folder.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = module
    from careamics.models.lvae.lvae import LadderVAE

    settings = {"encoder_conv_strides": [2, 2], "decoder_conv_strides": [2, 2]}
    settings |= {"encoder_n_filters": 64, "decoder_n_filters": 64, "encoder_dropout": 0.0, "decoder_dropout": 0.0}
    settings |= {"nonlinearity": "ELU", "predict_logvar": False, "analytical_kl": True}
    return LadderVAE((32, 32), 1, 1, [8] * 4, **settings)


def careamics_steps(images: Tensor, batch_size: int, device: str, calls: int) -> Callable[[], None]:
    """So many steps of CAREamics' ladder VAE with Adam per call, on images (N, 1, 28, 28) with an empty border."""
    place = torch.device(device)
    model = careamics_ladder().to(place)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    x = functional.pad(images[:batch_size].float(), [2] * 4).to(place)

    def step() -> None:
        optimizer.zero_grad()
        output, levels = model(x)
        error = functional.binary_cross_entropy_with_logits(output[:, :1], x, reduction="sum")
        loss = (error + sum(kl.sum() for kl in levels["kl"])) / len(x)
        loss.backward()
        optimizer.step()

    return synchronized(step, calls, place)
