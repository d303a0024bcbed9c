"""vae-export: what is written, what is said about it, and what is refused."""

import numpy as np
import pytest

from tests.support.exporting import untrained
from tests.support.refusals import refusal
from vae_cli.commands import export
from vae_cli.config import compose
from vae_cli.errors import ConfigError, ExportError


@pytest.fixture
def model(monkeypatch, tmp_path):
    """Makes every checkpoint that of one model."""
    trained = untrained("likelihood=normal")
    monkeypatch.setattr(export.checkpoint, "find", lambda name: tmp_path / name)
    monkeypatch.setattr(export.trained, "load", lambda *_: trained)
    monkeypatch.chdir(tmp_path)
    return trained


def exported(*settings):
    export.run(compose.compose("export", ["checkpoint=run", *settings]))


def test_parts_are_checked_on_test_images_and_written_together(model, tmp_path, capsys):
    exported()
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(";")[0] for line in said[:3]] == [
        "encoder.onnx: x → mean, std",
        "decoder.onnx: z → image",
        "prior.onnx: noise → z",
    ]
    assert said[3] == f"3 files from {tmp_path / 'run'}, checked on test images: written to onnx"
    before = {path.name: path.read_bytes() for path in (tmp_path / "onnx").iterdir()}
    exported("parts=decoder", "parameters=true")
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("decoder.onnx: z → image, loc, scale; largest difference ")
    assert said[1].endswith("replaced onnx")
    after = {path.name: path.read_bytes() for path in (tmp_path / "onnx").iterdir()}
    assert after.keys() == before.keys() == {"encoder.onnx", "decoder.onnx", "prior.onnx"}
    assert [name for name in after if after[name] != before[name]] == ["decoder.onnx"]


@pytest.mark.parametrize("kind", ["int8", pytest.param("float16", marks=pytest.mark.slow)])
def test_a_quantized_model_says_what_it_loses(model, kind, capsys):
    exported(f"quantize={kind}", "output=small", "parts=[encoder,decoder]")
    said = capsys.readouterr().out.splitlines()
    assert f"{kind}, " in said[0] and "% of the size in float32" in said[1]
    assert said[2].startswith("on 180 test images: PSNR ") and " dB instead of " in said[2] and "ELBO -" in said[2]
    import onnxruntime

    session = onnxruntime.InferenceSession("small/decoder.onnx")
    assert [value.name for value in session.get_outputs()] == ["image"]
    assert session.get_modelmeta().custom_metadata_map["quantized"] == kind
    z = np.zeros((2, 3), np.float32)
    image = model.model.image(model.model.posterior.forward(model.model.encoder.output.weight.new_zeros(2, 6)).mean)
    np.testing.assert_allclose(session.run(None, {"z": z})[0], image.detach(), atol=0.02)


@pytest.mark.parametrize(
    ("dataset", "line"),
    [
        ({"_target_": "vae_cli.data.MNIST"}, "mnist is not in nowhere/MNIST/raw"),
        ({"_target_": "vae_cli.data.Arrays", "path": None}, "dataset.path is not set"),
    ],
)
def test_without_its_data_a_model_is_checked_on_its_own_samples(model, capsys, dataset, line):
    model.settings["dataset"], model.settings["data_dir"] = dataset, None
    exported("parts=[prior]", "format=torch", "data_dir=nowhere")
    said = capsys.readouterr().out
    assert f"checked on samples of the model, since its data are not here ({line}" in said


def test_a_part_that_cannot_be_exported_is_named_and_the_others_are_written(model, monkeypatch, tmp_path, capsys):
    whole = export.programs.build

    def build(part, *rest):
        if part != "decoder":
            raise ExportError(f"{part}: Mine cannot be exported: it branches")
        return whole(part, *rest)

    monkeypatch.setattr(export.programs, "build", build)
    exported()
    said = capsys.readouterr()
    assert said.err.splitlines() == [
        "note: encoder: Mine cannot be exported: it branches: there is no encoder.onnx",
        "note: prior: Mine cannot be exported: it branches: there is no prior.onnx",
    ]
    assert "1 file from" in said.out
    with pytest.raises(ExportError, match="no part of the model can be exported; format=safetensors"):
        exported("parts=[encoder]", "output=other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["format=grid"], "format=grid: format accepts onnx, torch, safetensors or hub"),
        (["parts=[dec]"], "parts accepts encoder, decoder or prior or a list of them such as [encoder,decoder]"),
        (["parts=[]"], "or a list of them such as [encoder,decoder]"),
        (["quantize=int4"], "quantize accepts none, int8 or float16"),
        (["repo=mine"], "repo accepts null or owner/name"),
        (["frmat=onnx"], "unknown key frmat: did you mean format?"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(words, line):
    assert line in refusal("checkpoint=run", *words, command="export")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["format=torch", "quantize=int8"], "quantize=int8: format=torch takes no quantize; it goes with format=onnx"),
        (["repo=a/b"], "repo=a/b: format=onnx takes no repo; it goes with format=hub"),
        (["format=hub", "output=x"], "output=x: format=hub takes no output; it goes with format=onnx or torch or"),
        (["output=taken"], "output=taken is a file; name a folder"),
    ],
)
def test_keys_that_do_not_go_together_are_refused_before_anything_is_loaded(words, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("x")
    with pytest.raises(ConfigError, match=line.replace("(", r"\(")):
        exported(*words)
