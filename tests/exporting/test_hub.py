"""A run on the Hub: uploaded in one commit, opened again as the same model, and refused in one line each."""

import json

import numpy as np
import pytest
import yaml
from safetensors.numpy import save

import vae_cli
from tests.support.commands import status
from tests.support.hub_server import OTHER, hub, log_in  # noqa: F401
from tests.support.training import digits_run  # noqa: F401
from vae_cli import cli
from vae_cli.build import trained
from vae_cli.runs import checkpoint


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def uploaded(run, *words):
    return status(cli.export, f"checkpoint={run}", "format=hub", "repo=owner/digits", *words)


def test_an_uploaded_run_opens_again_as_the_same_model(hub, digits_run, monkeypatch, capsys):  # noqa: F811
    log_in(monkeypatch)
    assert uploaded(digits_run, "license=mit") == 0
    said = capsys.readouterr()
    assert f"uploaded to {hub.address}/owner/digits (only its owner sees it)" in said.out and "note" not in said.err
    files = hub.files("owner/digits")
    assert sorted(files) == ["README.md", "config.yaml", "model.safetensors", "samples.png"]
    assert files["samples.png"].startswith(b"\x89PNG")
    address = said.out.split("checkpoint=")[1].strip()
    there = trained.load(checkpoint.find(address), "cpu")
    own = trained.load(checkpoint.find(digits_run), "cpu")
    assert all((there.model.state_dict()[name] == value).all() for name, value in own.model.state_dict().items())
    assert there.facts == own.facts and there.step == own.step
    assert status(cli.sample, f"checkpoint={address}", "n=4", "output=there.png") == 0
    assert (vae_cli.load(address).sample(3, seed=0) == vae_cli.load(digits_run).sample(3, seed=0)).all()


def test_the_card_of_another_file_in_a_run_has_none_of_the_runs_numbers(hub, digits_run, monkeypatch):  # noqa: F811
    log_in(monkeypatch)
    assert uploaded(digits_run) == 0
    assert "| `elbo` |" in hub.files("owner/digits")["README.md"].decode()
    tuned = digits_run / "tuned.safetensors"
    try:
        vae_cli.load(digits_run).save(tuned)
        assert uploaded(tuned) == 0
    finally:
        tuned.unlink(missing_ok=True)
    text = hub.files("owner/digits")["README.md"].decode()
    assert "`elbo`" not in text and "They are not known: the uploaded file is not" in text


def test_nothing_uploaded_names_a_path_of_this_machine(hub, digits_run, monkeypatch, tmp_path):  # noqa: F811
    log_in(monkeypatch)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert uploaded(digits_run, "private=false") == 0
    files = hub.files("owner/digits")
    settings = trained.load(checkpoint.find(digits_run), "cpu").settings
    for path in (settings["data_dir"], str(digits_run), str(tmp_path), "/home/"):
        assert path is None or not any(path.encode() in content for content in files.values())
    config = yaml.safe_load(files["config.yaml"])
    assert config["data_dir"] is None and config["latent_dim"] == 3


def test_what_everybody_sees_is_never_taken_for_private(hub, digits_run, monkeypatch, capsys):  # noqa: F811
    log_in(monkeypatch)
    hub.add("owner/digits", {"README.md": b"mine"})
    assert uploaded(digits_run) == 1
    assert "exists and everybody sees it: set private=false, or name another" in capsys.readouterr().err
    assert hub.files("owner/digits") == {"README.md": b"mine"}
    assert uploaded(digits_run, "private=false") == 0
    said = capsys.readouterr()
    assert "(everybody sees it)" in said.out
    assert said.err.splitlines()[-1] == "note: license= is not set, without which nobody else may use the model"


@pytest.mark.parametrize(
    ("token", "words", "line"),
    [
        (None, [], "(HTTP status 401); log in with `hf auth login`, or set HF_TOKEN"),
        (OTHER, [], "you may not write there (HTTP status 403): log in as somebody who may"),
        ("hf_owner", ["license=mine"], '"license" must be one of'),
    ],
)
def test_a_refusal_of_the_hub_is_one_line(hub, digits_run, monkeypatch, capsys, token, words, line):  # noqa: F811
    if token:
        log_in(monkeypatch, token)
    assert uploaded(digits_run, *words) == 1
    said = [each for each in capsys.readouterr().err.splitlines() if not each.startswith("note")]
    assert len(said) == 1 and said[0].startswith("vae-export: error: repo=owner/digits: ") and line in said[0]
    assert not hub.repos.get("owner/digits") or not hub.files("owner/digits")


def test_a_file_of_the_hub_that_is_no_model_is_refused_in_one_line(hub, capsys):  # noqa: F811
    hub.add("owner/text", {"model.safetensors": save({"weight": np.zeros(3, np.float32)})})
    hub.add("owner/noise", {"model.safetensors": b"not safetensors at all"})
    for repo in ("owner/text", "owner/noise"):
        assert status(cli.sample, f"checkpoint=hf://{repo}", "n=4") == 1
        said = [line for line in capsys.readouterr().err.splitlines() if "error" in line or "Traceback" in line]
        assert len(said) == 1 and "model.safetensors: " in said[0] and "not a checkpoint of vae-train" in said[0], said


def test_numbers_of_a_model_on_the_hub_are_written_here(hub, digits_run, monkeypatch, tmp_path, capsys):  # noqa: F811
    log_in(monkeypatch)
    assert uploaded(digits_run) == 0
    words = ["checkpoint=hf://owner/digits", "limit=5", "num_importance_samples=1"]
    assert status(cli.evaluate, *words) == 0, capsys.readouterr().err
    assert json.loads((tmp_path / "evaluation.json").read_text())["checkpoint"] == "hf://owner/digits"
