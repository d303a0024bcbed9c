"""The answers to what a person asks of a model by hand: images, codes, neighbours, walks and draws."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vae_cli.build.trained import Trained
from vae_cli.data import Split
from vae_cli.data.base import label_name
from vae_cli.data.pictures import ignore_warnings, square
from vae_cli.errors import DataError, UserError, describe
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import batch
from vae_cli.exploring.axes import Axis, dimensions, principal
from vae_cli.generation import walks
from vae_cli.generation.samplers import Sampler, class_labels, pad_labels
from vae_cli.inference.examples import as_examples
from vae_cli.reporting import grids

ENCODED = 5_000  # most test images whose codes are compared
SHOWN = 2_000  # most codes in the plane
NEIGHBOURS = 8
DIGITS = 4  # of z after the point, so that a command that is copied names the very z of the picture
Answer = dict[str, Any]


@dataclass(frozen=True)
class CodedSplit:
    """The test images in use, their numbers in the test split, and their codes.

    Args:
        split: the whole test split.
        numbers: (N,) of the images whose codes are known.
        means: (N, D) of q(z|x), on the CPU.
        labels: (N,), or None.
    """

    split: Split
    numbers: Int[Tensor, "n"]
    means: Float[Tensor, "n d"]
    labels: Int[Tensor, "n"] | None


class Explorer:
    """A trained model, with the test images' codes where there are any; its answers are plain data for JSON.

    Args:
        trained: a model of images.
        test: its test split; None where that is not on this machine.
        seed: of pixels that are drawn.

    Raises:
        DataError: for a model of anything else than gray or RGB images, and for a hierarchy.
    """

    def __init__(self, trained: Trained, test: Split | None, seed: int = 0) -> None:
        self.model, self.facts, self.seed = trained.model, trained.facts, seed
        if len(self.facts.shape) != 3 or self.facts.shape[0] not in (1, 3):
            shape = "x".join(map(str, self.facts.shape))
            raise DataError(
                f"vae-explore shows gray and RGB images, and this model's examples are {shape}; use vae-sample "
                "mode=traverse"
            )
        if not self.model.is_flat:
            raise DataError(
                "vae-explore moves through one latent vector, and this model is a hierarchy; levels.png in its run "
                "directory shows what each level does, and traversals.png the top one's dimensions"
            )
        self.binarize = trained.settings["dataset"].get("binarize", "none")
        self.device = next(self.model.parameters()).device
        self.test = None if test is None else self._encode_test(test)
        means = None if self.test is None else self.test.means
        self.dimensions = dimensions(self.model, means)
        self.start = torch.tensor([axis.start for axis in sorted(self.dimensions, key=lambda axis: int(axis.name[1:]))])
        has_plane = means is not None and len(means) > 2 and len(self.start) > 2
        self.principal = principal(means, self.start) if has_plane and means is not None else []

    @property
    def axes(self) -> list[Axis]:
        """All directions, the two to start with first."""
        return [*self.principal, *self.dimensions]

    @property
    def labels(self) -> list[str]:
        """The labels of a conditional model, by name."""
        return [label_name(label, self.facts.class_names) for label in range(self.model.classes)]

    @torch.no_grad()
    def image(self, z: Float[Tensor, "d"], label: int | None) -> Answer:
        """Return the image that stands for p(x|z)."""
        return {"image": self._decode(z, label)}

    @torch.no_grad()
    def draw(self, seed: int, temperature: float, label: int | None) -> Answer:
        """Return the first z that vae-sample draws with a seed, and its image."""
        y = class_labels(self.model.classes, 1, label)
        labels = None if y is None else pad_labels(y).to(self.device)
        z = Sampler(self.model, seed, temperature).chunk(0, labels)[0]
        return self._code(z, label) | {"image": self._decode(z, label)}  # of z itself, as vae-sample seed= decodes it

    @torch.no_grad()
    def encode(self, data: bytes, label: int | None, invert: bool = False) -> Answer:
        """Return the code of a picture file, the picture as the model sees it, and its reconstruction.

        Raises:
            DataError: if it is no picture, or too large.
        """
        channels, height, width = self.facts.shape
        if height != width:
            raise DataError(f"the model's images, {height}x{width}, are not square: choose a test image instead")
        try:
            with ignore_warnings():
                values = square(BytesIO(data), height, channels).values
                levels = (255 - values if invert else values) / 255
                split = as_examples(levels, self.facts, self.binarize)
        except Exception as error:  # of whatever kind Pillow raises for a broken file
            reason = "no picture that can be read" if "cannot identify" in str(error) else describe(error)
            raise DataError(f"the file cannot be used: {reason}") from error
        x, _ = batch(self.model, replace(split, labels=torch.tensor([label or 0])), slice(0, 1), self.seed)
        return self._encoded(x, label)

    @torch.no_grad()
    def encode_test(self, number: int) -> Answer:
        """Return the same for a test image, with its own label.

        Raises:
            UserError: if there is no such image.
        """
        if self.test is None:
            raise UserError("there are no test images here")
        if number >= len(self.test.split):
            raise UserError(f"the test images are numbered 0 to {len(self.test.split) - 1}")
        x, y = batch(self.model, self.test.split, slice(number, number + 1), self.seed)
        label = None if y is None else int(y[0])
        answer = self._encoded(x, label if self.model.classes else None)
        return answer | {"number": number, "name": None if label is None else label_name(label, self.facts.class_names)}

    @torch.no_grad()
    def neighbours(self, z: Float[Tensor, "d"]) -> Answer:
        """Return the test images whose codes are nearest to z."""
        if self.test is None:
            return {"neighbours": []}
        distances = (self.test.means - z).norm(dim=1)
        nearest = distances.topk(min(NEIGHBOURS, len(distances)), largest=False)
        return {
            "neighbours": [self._neighbour(i, d) for d, i in zip(nearest.values.tolist(), nearest.indices.tolist())]
        }

    @torch.no_grad()
    def walk(
        self, first: Float[Tensor, "d"], second: Float[Tensor, "d"], labels: tuple[int | None, int | None], steps: int
    ) -> Answer:
        """Return the images on the straight line between two codes; each has the label of its nearer end."""
        y = None
        if labels[0] is not None and labels[1] is not None:
            y = (torch.tensor([labels[0]]), torch.tensor([labels[1]]))
        walk = walks.interpolate(first[None], second[None], steps, y)
        return {"images": [picture(image) for image in torch.cat(list(walk.images(self.model)))]}

    def points(self, x: Axis, y: Axis) -> Answer:
        """Return where codes of test images lie in the plane of two directions, and their labels."""
        if self.test is None:
            return {"points": [], "labels": None}
        every = -(-len(self.test.means) // SHOWN)
        places = torch.stack([axis.places(self.test.means[::every]) for axis in (x, y)], dim=1)
        labels = None if self.test.labels is None else self.test.labels[::every].tolist()
        return {"points": [[round(value, 3) for value in place] for place in places.tolist()], "labels": labels}

    def _encode_test(self, test: Split) -> CodedSplit:
        most = min(len(test), ENCODED)
        numbers = torch.linspace(0, len(test) - 1, most, dtype=torch.float64).long()
        codes = latent_codes.points(self.model, test.spread(most), self.seed)
        return CodedSplit(test, numbers, codes.means, codes.labels)

    def _neighbour(self, place: int, distance: float) -> Answer:
        assert self.test is not None
        number = int(self.test.numbers[place])
        x, y = batch(self.model, self.test.split, slice(number, number + 1), self.seed)
        name = None if y is None else label_name(int(y[0]), self.facts.class_names)
        return {"number": number, "name": name, "distance": round(distance, 2), "image": picture(x[0])}

    def _encoded(self, x: Float[Tensor, "1 c h w"], label: int | None) -> Answer:
        y = None if label is None else torch.tensor([label], device=self.device)
        return {"input": picture(x[0]), "label": label} | self._code(self.model.encode(x, y).mean[0], label)

    def _code(self, z: Tensor, label: int | None) -> Answer:
        rounded = [round(value, DIGITS) for value in z.cpu().tolist()]
        return {"z": rounded, "image": self._decode(torch.tensor(rounded), label)}

    def _decode(self, z: Tensor, label: int | None) -> str:
        y = None if label is None else torch.tensor([label], device=self.device)
        return picture(self.model.image(z[None].to(self.device), y)[0])


def picture(image: Float[Tensor, "c h w"]) -> str:
    """Return an image as a PNG in a data URL."""
    file = BytesIO()
    pixels = grids.to_bytes(image[None].nan_to_num())[0]
    grids.from_pixels(pixels).save(file, "PNG", compress_level=1)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
