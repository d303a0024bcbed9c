"""hf:// addresses: downloaded once, pinned by a revision, and refused in one line each."""

import sys

import pytest

from tests.support.hub_server import OTHER, go_offline, hub, log_in  # noqa: F401
from vae_cli.errors import CheckpointError, ConfigError
from vae_cli.runs import checkpoint
from vae_cli.runs.hub import download, is_address


def refused(address):
    with pytest.raises(CheckpointError) as caught:
        download(address)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(f"checkpoint={address}: ")
    return str(caught.value)


def test_a_file_of_the_hub_is_a_checkpoint_by_its_address(hub):  # noqa: F811
    hub.add("owner/digits", {"model.safetensors": b"first"})
    path = checkpoint.find("hf://owner/digits")
    assert path.read_bytes() == b"first" and path.name == "model.safetensors"
    assert not any("README" in request for request in hub.requested)
    hub.add("owner/digits", {"model.safetensors": b"second"})
    assert checkpoint.find("hf://owner/digits").read_bytes() == b"second"


def test_a_run_that_was_uploaded_by_hand_opens(hub):  # noqa: F811
    hub.add("owner/digits", {"checkpoints/best.safetensors": b"best", "checkpoints/last.safetensors": b"last"})
    assert download("hf://owner/digits").read_bytes() == b"best"


def test_a_pinned_file_is_asked_for_once(hub):  # noqa: F811
    first = hub.add("owner/digits", {"model.safetensors": b"first"})
    hub.add("owner/digits", {"model.safetensors": b"second"})
    assert download(f"hf://owner/digits@{first}").read_bytes() == b"first"
    hub.requested.clear()
    assert download(f"hf://owner/digits@{first}").read_bytes() == b"first"
    assert hub.requested == []


def test_without_a_connection_the_cache_is_enough(hub, monkeypatch):  # noqa: F811
    hub.add("owner/digits", {"model.safetensors": b"first"})
    download("hf://owner/digits")
    go_offline(monkeypatch)
    assert download("hf://owner/digits").read_bytes() == b"first"
    assert "cannot be reached (HF_HUB_OFFLINE is set), and no model of that" in refused("hf://owner/others")


@pytest.mark.parametrize("file", ["best.safetensors", "checkpoints/best.safetensors", "checkpoints/last.safetensors"])
def test_without_a_connection_any_file_in_the_cache_is_enough(hub, monkeypatch, file):  # noqa: F811
    commit = hub.add("owner/digits", {file: b"run"})
    assert download("hf://owner/digits").read_bytes() == b"run"
    go_offline(monkeypatch)
    for address in ("hf://owner/digits", f"hf://owner/digits@{commit}"):
        assert download(address).read_bytes() == b"run"
    assert "no model of that revision is in the cache" in refused(f"hf://owner/digits@{'0' * 40}")


def test_a_pinned_run_that_was_uploaded_by_hand_is_asked_for_once(hub):  # noqa: F811
    commit = hub.add("owner/digits", {"checkpoints/last.safetensors": b"last"})
    assert download(f"hf://owner/digits@{commit}").read_bytes() == b"last"
    hub.requested.clear()
    assert download(f"hf://owner/digits@{commit}").read_bytes() == b"last"
    assert hub.requested == []


def test_a_cache_that_cannot_be_written_is_named(hub, tmp_path):  # noqa: F811
    hub.add("owner/digits", {"model.safetensors": b"first"})
    (tmp_path / "hub").write_text("a file in the place of the cache")
    line = refused("hf://owner/digits")
    assert str(tmp_path / "hub") in line and "HF_HOME names the folder" in line and "cannot be reached" not in line


def test_what_is_not_there_or_not_yours_is_refused_in_one_line(hub, monkeypatch):  # noqa: F811
    hub.add("owner/digits", {"model.safetensors": b"first"})
    hub.add("owner/text", {"README.md": b"words"})
    hub.add("owner/secret", {"model.safetensors": b"first"}, private=True)
    assert "(HTTP status 401); log in with `hf auth login`, or set HF_TOKEN" in refused("hf://owner/secret")
    log_in(monkeypatch, OTHER)
    assert "there is no owner/secret, or it is private: check the name" in refused("hf://owner/secret")
    assert "there is no owner/none" in refused("hf://owner/none")
    assert "owner/digits has no revision v9" in refused("hf://owner/digits@v9")
    assert "the repository has no model.safetensors: it holds no model" in refused("hf://owner/text")
    log_in(monkeypatch)
    assert download("hf://owner/secret").read_bytes() == b"first"


@pytest.mark.parametrize(
    "address", ["hf://owner", "hf://", "hf://a/b/c", "hf://owner/name@", "hf://owner/na me", "hf:/"]
)
def test_what_is_no_address_is_refused(address):
    assert "write hf://owner/name, or hf://owner/name@revision" in refused(address)


def test_a_name_that_the_hub_has_not_is_refused():
    assert "Repo id must use alphanumeric" in refused("hf://owner/..")


def test_the_library_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ConfigError, match=r"needs huggingface_hub, which is not installed: pip install 'vae-cli\[hub\]'"
    ):
        download("hf://owner/digits")


def test_other_paths_are_no_addresses(tmp_path):
    assert is_address("hf://a/b") and not is_address("hf") and not is_address(tmp_path / "hf:" / "a")
