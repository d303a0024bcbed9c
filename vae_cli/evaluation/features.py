"""Networks that make features of images, in which sets of images are compared."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.build import registry
from vae_cli.build.settings import FEATURES
from vae_cli.data import Data
from vae_cli.data.download import RemoteFile, download
from vae_cli.errors import ConfigError, UserError, counted, describe, missing_extra
from vae_cli.evaluation import classifier
from vae_cli.runs import tensor_file
from vae_cli.system.cache import cache_dir
from vae_cli.system.paths import expand

INCEPTION = RemoteFile(
    "weights-inception-2015-12-05-6726825d.pth",
    "sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ("https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",),
)
NAMED = "name the file with weights=FILE, or choose features=auto for gray images with labels"
TOGETHER = 64  # images that a network gets at once
OF_INCEPTION = 16  # which it makes 299x299


@dataclass(frozen=True)
class Features:
    """A network that makes features of images.

    Args:
        network: maps images (B, C, H, W) in [0, 1] to features (B, F).
        name: in words.
        digest: of its weights: features of another digest are others.
        accuracy: of the classifier whose features they are, on held-out images.
        is_inception: whether the Fréchet distance of its features is the FID, and the kernel distance the KID.
    """

    network: nn.Module
    name: str
    digest: str
    accuracy: float | None = None
    is_inception: bool = False

    @torch.no_grad()
    def extract(
        self, images: Iterable[Tensor], device: torch.device, advance: Callable[[int], object] = lambda images: None
    ) -> Float[Tensor, "n f"]:
        """Return the features of chunks of images in [0, 1], float32 on the CPU; other values are clamped.

        Raises:
            ConfigError: if the network does not take the images, or gives no finite features (B, F) of them.
        """
        parts, _ = [], self.network.to(device)
        for chunk in images:
            for x in chunk.split(TOGETHER):
                parts.append(self._features(x.to(device).clamp(0, 1)).float().cpu())
            advance(len(chunk))
        return torch.cat(parts)

    def _features(self, x: Tensor) -> Tensor:
        try:
            values = self.network(x)
        except UserError:
            raise
        except Exception as error:  # of whatever kind a network of a person's own raises
            shape = "x".join(map(str, x.shape[1:]))
            raise ConfigError(f"features: {self.name} does not take images of {shape}: {describe(error)}") from error
        is_right = isinstance(values, Tensor) and values.ndim == 2 and len(values) == len(x)
        if not (is_right and bool(values.isfinite().all())):
            shown = f"values of shape {tuple(values.shape)}" if isinstance(values, Tensor) else type(values).__name__
            raise ConfigError(
                f"features: {self.name} gives {shown} for {counted(len(x), 'image')}; it should give finite numbers "
                "of shape (images, features)"
            )
        return values

    def facts(self, n_features: int) -> dict[str, Any]:
        """Return the facts that evaluation.json has of the network."""
        about = {"name": self.name, "digest": self.digest, "n_features": n_features}
        return about if self.accuracy is None else about | {"accuracy": self.accuracy}


def find(name: str, weights: str | None, allow: str | None, data: Data, kind: str) -> Features:
    """Return the features that `features=` names.

    Args:
        name: `auto`, `inception`, a file's or a class's name.
        weights: the file of the Inception network's weights.
        allow: a package besides vae_cli whose class may be named.
        data: the images that are compared, on whose training split a classifier is trained.
        kind: what was made of them, such as `gray`: other images of a set need another classifier.

    Raises:
        ConfigError: if there are no such features, or none fit the data.
    """
    if name == "auto":
        name = "inception" if data.facts.shape[0] != 1 else name
    if weights is not None and name != "inception":
        raise ConfigError(f"weights={weights}: these are the weights of features=inception; leave out one of the two")
    if name == "auto":
        return _of_classifier(classifier.load_or_train(*_labeled(data), data.facts.name, f"{data.facts.digest}-{kind}"))
    if name == "inception":
        return Features(_inception(weights), "Inception v3", INCEPTION.checksum, is_inception=True)
    suffix = Path(name).suffix.lower()
    if suffix == ".onnx":
        return _of_onnx(expand(name))
    if suffix == ".safetensors":
        if not expand(name).is_file():
            raise ConfigError(f"features={name}: there is no such file")
        return _of_classifier(classifier.load(expand(name)))
    if not re.fullmatch(r"\w+(\.\w+)+", name):
        raise ConfigError(f"features={name}: features accepts {FEATURES}")
    trusted = () if allow is None else (allow,)
    try:
        network = registry.construct("features", {"_target_": name}, {}, trusted)
    except ConfigError as error:
        raise ConfigError(str(error).replace("features._target_=", "features=")) from error
    return Features(network.eval(), name, tensor_file.digest_of(network.state_dict()))


def _labeled(data: Data) -> tuple[Any, Any]:
    """Return the training and the test split of gray images with labels.

    Raises:
        ConfigError: if there are none, or they are large.
    """
    others = (
        "name other features: the .safetensors file of a classifier of images that are alike, inception, an .onnx file "
        "or a class such as my_package.MyFeatures"
    )
    if max(data.facts.shape) > classifier.LARGEST_SIDE:
        most = classifier.LARGEST_SIDE
        raise ConfigError(f"features=auto: gray images above {most}x{most} have no features of ours; {others}")
    labels = data.train.labels
    if labels is None or len(labels.unique()) < 2:
        raise ConfigError(
            "features=auto: the features of gray images are those of a classifier of their labels, and "
            f"{data.facts.name} has none; {others}"
        )
    return data.train, data.test


def _of_classifier(trained: classifier.Trained) -> Features:
    return Features(
        trained.network,
        f"classifier of the labels of {trained.data}",
        tensor_file.digest_of(trained.network.state_dict()),
        trained.accuracy,
    )


# The Inception network of the FID


class _Inception(nn.Module):
    """The network of torch-fidelity, for images in [0, 1] of one channel or three."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 2048"]:
        levels = (255 * x).round().byte()
        colors = levels.expand(-1, 3, -1, -1) if levels.shape[1] == 1 else levels
        return torch.cat([self.network(some)[0] for some in colors.split(OF_INCEPTION)])


def _inception(weights: str | None) -> nn.Module:
    """Return the network of the FID, with weights from a file or downloaded.

    Raises:
        ConfigError: if torch-fidelity is not installed, or the file has other contents.
        DataError: if the weights cannot be downloaded.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise missing_extra("features=inception", error, "inception") from error
    if weights is None:
        path = cache_dir() / "features" / INCEPTION.name
        download("Inception v3", path.parent, [INCEPTION], way=NAMED)
    else:
        path = expand(weights)
    contents = _checked(path)
    # The library opens its file as a pickle that may run code. It gets a copy that was made here, of tensors alone.
    tensors, copy = torch.load(io.BytesIO(contents), map_location="cpu", weights_only=True), io.BytesIO()
    torch.save(tensors, copy)
    copy.seek(0)
    return _Inception(FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], copy)).eval()


def _checked(path: Path) -> bytes:
    """Return the contents of the file of the weights, once they have their checksum.

    Raises:
        ConfigError: if it cannot be read, or has another checksum: it is a pickle, which could run code.
    """
    try:
        contents = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"weights={path}: it cannot be read ({describe(error)})") from error
    wanted = INCEPTION.checksum.removeprefix("sha256:")
    if hashlib.sha256(contents).hexdigest() != wanted:
        address = INCEPTION.mirrors[0]
        raise ConfigError(f"weights={path}: this is not {address}, whose SHA-256 is {wanted}; it is not opened")
    return contents


# A network in an ONNX file


class _Onnx(nn.Module):
    """A program of onnxruntime, of one input and one output.

    Args:
        session: the program.
    """

    def __init__(self, session: Any) -> None:
        super().__init__()
        self.session, self.input = session, session.get_inputs()[0].name
        self.output = session.get_outputs()[0].name

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run([self.output], {self.input: x.cpu().numpy()})[0])


def _of_onnx(path: Path) -> Features:
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise missing_extra(f"features={path}", error, "onnx") from error
    try:
        whole = onnx.load(str(path)).SerializeToString(deterministic=True)  # with weights in files of their own
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has kinds of its own
        raise ConfigError(f"features={path}: it is no ONNX file that can be read ({describe(error)})") from error
    if len(session.get_inputs()) != 1:
        names = ", ".join(each.name for each in session.get_inputs())
        raise ConfigError(f"features={path}: it takes {names}; features take images alone")
    return Features(_Onnx(session), path.name, hashlib.sha256(whole).hexdigest()[:16])
