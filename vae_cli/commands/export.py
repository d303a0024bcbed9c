"""`vae-export`: a trained model for other programs, and for other people."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.commands.image_files import errors_name
from vae_cli.constraints import check_takes
from vae_cli.errors import ConfigError, ExportError, counted
from vae_cli.exporting import programs, weights
from vae_cli.exporting.checks import SIZES, Examples, Run, check, examples, run_module
from vae_cli.exporting.folder import atomic_folder, check_folder
from vae_cli.exporting.programs import Program
from vae_cli.runs import checkpoint
from vae_cli.system.atomic import written_or_replaced
from vae_cli.system.paths import expand

MEASURED = 1000  # test images, at most, by which a quantized model is judged
SUFFIXES = {"onnx": ".onnx", "torch": ".pt2"}
FORMATS = {  # the formats that take a key, of those that not all take
    "parts": ("onnx", "torch"),
    "parameters": ("onnx", "torch"),
    "quantize": ("onnx",),
    "output": ("onnx", "torch", "safetensors"),
    "repo": ("hub",),
    "private": ("hub",),
    "license": ("hub",),
}
DEFAULTS = {
    "parts": list(programs.PARTS),
    "parameters": False,
    "quantize": "none",
    "output": None,
    "repo": None,
    "private": True,
    "license": None,
}
Config = Mapping[str, Any]


def run(config: dict[str, Any]) -> None:
    """Export a checkpoint's model.

    Args:
        config: the plain config of `vae-export`.

    Raises:
        UserError: for a checkpoint that cannot be used, a model that cannot be exported, or an output that cannot be
            written.
    """
    check_takes(config, "format", FORMATS, DEFAULTS)
    kind, path = config["format"], config["dataset"]["path"]
    if path is not None and kind not in SUFFIXES:
        raise ConfigError(f"dataset.path={path}: format={kind} reads no data; leave it out")
    if kind == "hub":
        _publish(config)
    elif kind == "safetensors":
        _write_weights(config)
    else:
        _write_parts(config, SUFFIXES[kind])


def _publish(config: Config) -> None:
    """Upload the model."""
    from vae_cli.exporting import hub

    if config["repo"] is None:
        raise ConfigError("repo=owner/name is missing: format=hub uploads to a repository")
    hub.require()
    path = checkpoint.find(config["checkpoint"])
    loaded = trained.load(path, "cpu", config["allow"])
    repo = config["repo"]
    page, is_private, commit = hub.publish(repo, config["private"], config["license"], path, loaded)
    if config["license"] is None:
        print("note: license= is not set, without which nobody else may use the model", file=sys.stderr)
    seen = "only its owner sees it" if is_private else "everybody sees it"
    print(f"{path}: uploaded to {page} ({seen}); open it with checkpoint=hf://{repo}@{commit}")


def _write_weights(config: Config) -> None:
    """Write the model as one safetensors file."""
    output = expand(config["output"] or "model.safetensors")
    if output.suffix != ".safetensors":
        raise ConfigError(f"output={output}: end it in .safetensors")
    path = checkpoint.find(config["checkpoint"])
    trained.load(path, "cpu", config["allow"])  # so that nothing is passed on that nobody can open
    where = written_or_replaced(output)
    with errors_name(output):
        weights.write(path, output)
    print(f"the weights of {path}, without paths of this machine: {where}")


def _write_parts(config: Config, suffix: str) -> None:
    """Write a folder of the model's parts, each checked against the model."""
    kind = config["format"]
    output = expand(config["output"] or kind)
    check_folder(output, [f"{part}{suffix}" for part in programs.PARTS])
    if kind == "onnx":
        from vae_cli.exporting import onnx

        onnx.require()
    path = checkpoint.find(config["checkpoint"])
    loaded = trained.load(path, "cpu", config["allow"])
    if loaded.model.preprocessing is not None and (config["parameters"] or config["quantize"] != "none"):
        key = "parameters=true" if config["parameters"] else f"quantize={config['quantize']}"
        raise ConfigError(f"{key} is of models of images, and this one is of {loaded.facts.noun}s; leave it out")
    images = examples(loaded, config, MEASURED if config["quantize"] != "none" else 2 * max(SIZES))
    lines: list[str] = []
    runs: dict[str, Run] = {}
    where = written_or_replaced(output, f"*{suffix}")
    parts = _names(config["parts"])
    with atomic_folder(output, [f"{part}{suffix}" for part in parts]) as folder:
        for part in parts:
            try:
                line, runs[part] = _write_part(part, loaded, images, folder / f"{part}{suffix}", config)
                lines.append(line)
            except ExportError as error:
                print(f"note: {error}: there is no {part}{suffix}", file=sys.stderr)
        if not lines:
            raise ExportError("no part of the model can be exported; format=safetensors writes its weights")
        if config["quantize"] != "none":
            lines.append(_loss(loaded, images, runs))
    print("\n".join(lines))
    print(f"{counted(len(runs), 'file')} from {path}, checked on {images.kind}: {where}")


def _names(parts: str | Sequence[str]) -> list[str]:
    """Return the parts that a value names, each once."""
    return [parts] if isinstance(parts, str) else list(dict.fromkeys(parts))


def _write_part(part: str, loaded: Trained, images: Examples, path: Path, config: Config) -> tuple[str, Run]:
    """Write a part and compare it with the model; return the words about it, and the part as it runs."""
    program = programs.build(part, loaded, config["parameters"])
    if config["format"] == "onnx":
        from vae_cli.exporting import onnx

        if config["quantize"] != "none" and part != "prior":
            return _write_quantized(program, loaded, images, path, config)
        path.write_bytes(onnx.convert(program, loaded).SerializeToString())
        run = onnx.runner(path)
    else:
        from vae_cli.exporting import program as torch_program

        torch_program.write(program, loaded, path)
        run = torch_program.runner(path)
    difference = check(program, run, images)
    return f"{_signature(path, program)}; largest difference {difference:.1e}", run


def _write_quantized(
    program: Program, loaded: Trained, images: Examples, path: Path, config: Config
) -> tuple[str, Run]:
    """Write a quantized part; the decoder that is returned gives the parameters of p(x|z) in any case."""
    from vae_cli.exporting import onnx, quantization

    whole = programs.build(program.name, loaded, has_parameters=True)
    converted = onnx.convert(whole, loaded)
    run = onnx.runner(converted)
    check(whole, run, images)
    small = quantization.quantize(converted, config["quantize"], quantization.calibration(whole, images))
    path.write_bytes(onnx.with_outputs(small, program, loaded, config["quantize"]).SerializeToString())
    onnx.runner(path)
    ratio = path.stat().st_size / converted.ByteSize()
    return f"{_signature(path, program)}; {config['quantize']}, {ratio:.0%} of the size in float32", onnx.runner(small)


def _loss(loaded: Trained, images: Examples, runs: Mapping[str, Run]) -> str:
    """Return the words about what the quantization of the parts that were written costs."""
    from vae_cli.exporting.quantization import loss, measure

    whole = {part: programs.build(part, loaded, has_parameters=True) for part in ("encoder", "decoder")}
    full = {part: (program, run_module(program)) for part, program in whole.items()}
    small = {part: (program, runs.get(part, run)) for part, (program, run) in full.items()}
    words = loss(measure(loaded, **full, examples=images), measure(loaded, **small, examples=images))
    return f"on {len(images):,} {images.kind}: {words}"


def _signature(path: Path, program: Program) -> str:
    return f"{path.name}: {', '.join(program.input_names)} → {', '.join(value.name for value in program.outputs())}"
