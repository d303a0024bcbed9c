"""ONNX files of a model's parts, checked in onnxruntime."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_cli import __version__
from vae_cli.build.trained import Trained
from vae_cli.errors import ExportError, missing_extra
from vae_cli.exporting.checks import Arrays, Run
from vae_cli.exporting.programs import Program, reason, trace
from vae_cli.exporting.quiet import quiet

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = 2_000_000_000  # bytes of weights in one file: a protocol buffer ends at two gigabytes
BATCH = "batch"  # the name of the first dimension


def require() -> None:
    """Check that the libraries are here, before anything is computed.

    Raises:
        ConfigError: with the command that installs them.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_extra("format=onnx", error, "onnx") from error


def convert(program: Program, trained: Trained) -> ModelProto:
    """Return a program as an ONNX model with its documentation in it.

    Raises:
        ExportError: if it cannot be one.
    """
    import torch

    size = sum(value.numel() * value.element_size() for value in program.state_dict().values())
    if size > LARGEST:
        raise ExportError(f"{program.name}: its weights are over 2 GB, the most that a file holds; use format=torch")
    recorded = trace(program)
    try:
        with quiet():
            exported = torch.onnx.export(
                recorded,
                (),
                kwargs=program.example(),
                input_names=program.input_names,
                output_names=[value.name for value in program.outputs()],
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # of the exporter's own kinds
        raise ExportError(f"{program.name}: {reason(program, _innermost(error))}") from error
    assert exported is not None
    model = exported.model_proto
    _name_batch(model)
    _document(model, program, trained)
    return model


def _innermost(error: BaseException) -> Exception:
    """Return the error below the exporter's, whose own text is a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error if isinstance(error, Exception) else Exception(str(error))


def _name_batch(model: ModelProto) -> None:
    """Name the batch dimension, which torch gives a number."""
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for dim in value.type.tensor_type.shape.dim[:1]:
            if dim.dim_param:
                dim.dim_param = BATCH


def _document(model: ModelProto, program: Program, trained: Trained) -> None:
    """Write into the model what its inputs and outputs are."""
    del model.metadata_props[:]
    described = program.describe()
    model.producer_name, model.producer_version = "vae_cli", __version__
    model.doc_string = f"The {program.name} of a variational autoencoder; metadata_props say what goes in and out."
    for value in (*model.graph.input, *model.graph.output):
        meanings = {each["name"]: each["meaning"] for each in (*described["inputs"], *described["outputs"])}
        value.doc_string = meanings[value.name]
    facts = trained.facts
    about: dict[str, Any] = {
        "part": program.name,
        "inputs": described["inputs"],
        "outputs": described["outputs"],
        "preprocessing": "none is needed: it is inside the graph",
        "support": facts.support,
        "shape": list(facts.shape),
        "latent_dim": trained.model.latent_dim,
        "levels": trained.model.level_sizes,
        "columns": [asdict(column) for column in facts.columns],
        "classes": trained.model.classes,
        "class_names": list(facts.class_names),
        "data": facts.name,
        "vae_cli": __version__,
    }
    for key, value in about.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)


def with_outputs(model: ModelProto, program: Program, trained: Trained, quantized: str) -> ModelProto:
    """Return a quantized model without what none of a program's outputs needs."""
    from onnx.utils import Extractor

    outputs = [value.name for value in program.outputs()]
    smaller = Extractor(model).extract_model(program.input_names, outputs)
    _document(smaller, program, trained)
    entry = smaller.metadata_props.add()
    entry.key, entry.value = "quantized", quantized
    return smaller


def runner(model: ModelProto | Path) -> Run:
    """Return an ONNX model as a function of named arrays, run by onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, inputs)))

    return run
