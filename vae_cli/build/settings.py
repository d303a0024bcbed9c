"""The values of a config's top-level keys; those inside a group are the class's that takes them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from vae_cli.constraints import (
    BelowOne,
    Count,
    Described,
    FilePath,
    FolderPath,
    Index,
    Length,
    Name,
    NonNegative,
    Pattern,
    Positive,
    Range,
    accepts,
    check_value,
    from_text,
)
from vae_cli.errors import ConfigError

# Keys that may be given beside resume=.
MAY_CHANGE = (
    *("epochs", "device", "compile", "checkpoint_every", "sample_every", "logger", "threads"),
    *("data_dir", "dataset.path"),
)
FEWEST_EPOCHS = 100  # that epochs=auto makes
_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_SIZES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_POSITIVE_NUMBER = r"(?=.*[1-9])(\d+(?:\.\d+)?) *"
_INTERVAL = rf"{_POSITIVE_NUMBER}({'|'.join(_UNITS)})"
_SIZE = rf"{_POSITIVE_NUMBER}({'|'.join(_SIZES)})"

Part = Literal["encoder", "decoder", "prior"]
FEATURES = "auto, inception, an .onnx or .safetensors file, or a class such as my_package.MyFeatures"

RULES: dict[str, Any] = {
    "latent_dim": Count,
    "conditional": bool,
    "mc_samples": Count,
    "batch_size": Literal["auto"] | Count,
    "epochs": Literal["auto"] | Index,
    "seed": Annotated[int, Range(0, 2**63 - 1)],
    "device": Annotated[
        str,
        Pattern(r"auto|cpu|cuda(:\d+)?|mps"),
        Described("auto, cpu, cuda, cuda:N or mps", suggested=("auto", "cuda", "mps")),
    ],
    "threads": Count | None,
    "fail_fast": bool,
    "retry_failed": bool,
    "optimize": Annotated[
        Name | Annotated[Sequence[Name], Length(1)],
        Described("a number of the metrics such as validation/elbo, or a list of them"),
    ],
    "precision": Literal["float32", "bfloat16"],
    "compile": bool,
    "data_dir": FolderPath | None,
    "resume": Annotated[FilePath, Described("a run directory")] | None,
    "init_output_bias": bool,
    "report": bool,
    "clip_grad_norm": Positive | None,
    "skip_grad_norm": Positive | None,
    "ema_decay": BelowOne | None,
    "early_stopping": Count | None,
    "checkpoint_every": Annotated[
        Count | Annotated[str, Pattern(_INTERVAL)],
        Described("epochs, an integer of at least 1, or a time such as 10min"),
    ],
    "sample_every": Index,
    "log_every": Count,
    "allow": Annotated[Name, Described("a package's name")] | None,
    "checkpoint": Annotated[FilePath, Described("a run directory, a checkpoint file or hf://owner/name")] | None,
    "n": Count | None,
    "mode": Literal["prior", "interpolate", "traverse", "manifold", "levels"],
    "sampler": Literal["prior", "gmm", "aggregate"],
    "components": Count,
    "metric": Name,
    "between": Annotated[Sequence[Index], Length(2), Described("a list of two or more images' numbers, such as [3,17]")]
    | None,
    "path": Literal["linear", "slerp"],
    "around": Annotated[Index, Described("an image's number, from 0 on")] | None,
    "steps": Annotated[int, Range(2, 1000)] | None,
    "temperature": Annotated[
        NonNegative | Annotated[Sequence[NonNegative], Length(1)],
        Described("a number of at least 0, or of a hierarchy a list with one for each level, such as [0.8,1]"),
    ],
    "level": Annotated[Count | Name, Described("a level of a hierarchy by its name or number, such as z3 or 3")] | None,
    "levels": Count | None,
    "label": Annotated[Index | Name, Described("all, or a label by its name or its number")] | None,
    "input": Annotated[FilePath, Described("train, validation, test, a folder of images or an .npz or .npy file")],
    "split": Literal["train", "validation", "test"],
    "num_importance_samples": Count,
    "limit": Count | None,
    "disentanglement": bool,
    "codes": Literal["mean", "draw"],
    "trees": Literal["random_forest", "extra_trees", "gradient_boosting"],
    "beside": Annotated[
        FilePath | Annotated[Sequence[FilePath], Length(1)],
        Described("run or sweep directories, one or a list such as [sweep,runs/b4]"),
    ]
    | None,
    "memory": Literal["auto"] | Annotated[str, Pattern(_SIZE), Described("a size such as 500MB or 2GB")],
    "draw": bool | None,
    "z": Annotated[Sequence[float], Length(1), Described("a list of numbers, one for each latent dimension")] | None,
    "port": Annotated[int, Range(0, 65535)] | None,
    "open": bool,
    "format": Literal["auto", "grid", "png", "npz", "csv", "parquet"],
    "fill": Literal["auto", "missing", "all"],
    "generation": bool,
    "features": Annotated[Name, Described(FEATURES, suggested=("auto", "inception"))],
    "weights": Annotated[FilePath, Described("the file of the Inception network's weights")] | None,
    "samplers": Annotated[
        Sequence[Literal["prior", "gmm", "aggregate"]], Length(1), Described("a list of prior, gmm and aggregate")
    ],
    "rows": FilePath | None,
    "output": FilePath | None,
    "parts": Part | Annotated[Sequence[Part], Length(1), Described("a list of them such as [encoder,decoder]")],
    "parameters": bool,
    "quantize": Literal["none", "int8", "float16"],
    "repo": Annotated[str, Pattern(r"[\w.-]+/[\w.-]+"), Described("owner/name")] | None,
    "private": bool,
    "license": Annotated[str, Pattern(r"[\w.-]+"), Described("a licence's short name, such as mit")] | None,
}
COMMAND_RULES: dict[str, dict[str, Any]] = {  # of keys that mean something else in one command
    "export": {"format": Literal["onnx", "torch", "safetensors", "hub"]},
}


def check_values(config: Mapping[str, Any], command: str = "train") -> None:
    """Check the top-level values of a command's plain config.

    Raises:
        ConfigError: naming the first wrong key, its value and what it accepts.
    """
    for key, annotation in (RULES | COMMAND_RULES.get(command, {})).items():
        if key in config:
            check_value(key, config[key], annotation)


def may_change(key: str) -> bool:
    """Return whether a dotted key may be given beside `resume=`, of the logger any."""
    return key in MAY_CHANGE or key.startswith("logger.")


def check_beside_resume(keys: Iterable[str]) -> None:
    """Check the dotted keys that are given beside `resume=`; Hydra's own are of no effect there.

    Raises:
        ConfigError: for a setting of a run that may not change.
    """
    for key in keys:
        is_hydras = key.startswith("hydra") and key != "hydra.run.dir"
        if not (may_change(key) or is_hydras or key in ("resume", "allow")):
            raise ConfigError(f"{key}: beside resume= only {', '.join(MAY_CHANGE)} may be given")


def from_texts(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose top-level values are the numbers that texts spell, where the rules ask for numbers."""
    return {key: from_text(RULES.get(key, Any), value) for key, value in config.items()}


def is_accepted(key: str, value: Any) -> bool:
    """Return whether a top-level key takes a value; True for a key inside a group."""
    return accepts(RULES.get(key, Any), value)


def parse_interval(value: int | str) -> tuple[int | None, float | None]:
    """Return `(epochs, None)` for a count of epochs, `(None, seconds)` for a time such as `10min`, `30 s`, `2h`.

    Raises:
        ConfigError: if it is neither.
    """
    check_value("checkpoint_every", value, RULES["checkpoint_every"])
    if isinstance(value, int):
        return value, None
    match = re.fullmatch(_INTERVAL, value)
    assert match
    return None, float(match[1]) * _UNITS[match[2]]


def parse_bytes(value: str) -> float:
    """Return the bytes in a size such as `500MB`, `2 GB`.

    Raises:
        ConfigError: if it is none.
    """
    check_value("memory", value, RULES["memory"])
    match = re.fullmatch(_SIZE, value)
    assert match
    return float(match[1]) * _SIZES[match[2]]
