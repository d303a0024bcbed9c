"""Downloads, whatever the data set."""

import errno
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pooch
import pytest

from tests.support.files import contents, error_of, md5, write
from vae_cli.data import download as module
from vae_cli.data.download import RemoteFile, download, without_downloads
from vae_cli.errors import DataError

CONTENT = bytes(range(256)) * 2000
NOWHERE = "http://127.0.0.1:1/a"


def remote(*mirrors, name="a", content=CONTENT):
    return RemoteFile(name, md5(content), mirrors)


@pytest.fixture
def whole(server):
    server.files |= {"a": CONTENT, "b": b"b"}
    return remote(server.address("a"))


def fetch(folder, *files):
    download("letters", folder, files, "; or draw them")


def test_a_missing_file_is_downloaded_once_with_a_progress_bar_on_stderr(tmp_path, server, whole, capsys):
    fetch(tmp_path / "data", whole)
    out, err = capsys.readouterr()
    assert out == "" and f"letters: downloading a from {server.host} to {tmp_path / 'data'}" in err and "100%" in err
    fetch(tmp_path / "data", whole)
    assert contents(tmp_path / "data") == {"a": CONTENT} and server.requested == ["a"]
    assert capsys.readouterr() == ("", "")


def test_only_what_is_missing_or_broken_is_downloaded(tmp_path, server, whole, capsys):
    write(tmp_path, {"a": CONTENT[:-1]})
    fetch(tmp_path, whole, remote(server.address("b"), name="b", content=b"b"))
    assert server.requested == ["a", "b"] and contents(tmp_path) == {"a": CONTENT, "b": b"b"}
    assert f"letters: {tmp_path / 'a'} is broken or incomplete" in capsys.readouterr().err
    (tmp_path / "a").unlink()
    fetch(tmp_path, whole, remote(server.address("b"), name="b", content=b"b"))
    assert server.requested == ["a", "b", "a"]


def test_the_mirrors_are_tried_in_order(tmp_path, server, whole):
    fetch(tmp_path, remote(NOWHERE, server.address("missing"), *whole.mirrors))
    assert contents(tmp_path) == {"a": CONTENT} and server.requested == ["missing", "a"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [("cut", "IncompleteRead"), ("page", "has not the checksum md5:"), ("missing", "HTTP status 404, Not Found")],
)
def test_a_bad_download_is_refused_in_one_line_that_says_what_to_do_and_leaves_nothing(
    tmp_path, server, whole, damage, reason
):
    server.cut = damage == "cut"
    server.page = b"<html>log in</html>" if damage == "page" else None
    if damage == "missing":
        server.files.clear()
    message = error_of(lambda: fetch(tmp_path, remote(NOWHERE, *whole.mirrors)))
    start = f"letters needs {tmp_path / 'a'}, and downloading it failed from {NOWHERE} (Connection refused) and from "
    assert message.startswith(f"{start}{server.host} (") and reason in message
    assert f"put a ({whole.checksum}) into {tmp_path} by hand" in message and "data_dir=" in message
    assert message.endswith("; or draw them") and contents(tmp_path) == {}


def test_a_folder_made_for_a_download_that_failed_is_removed_and_one_with_files_is_not(tmp_path, server, whole):
    error_of(lambda: fetch(tmp_path / "data", remote(NOWHERE)))
    assert not (tmp_path / "data").exists()
    error_of(lambda: fetch(tmp_path / "data", whole, remote(NOWHERE, name="b")))
    assert contents(tmp_path / "data") == {"a": CONTENT}
    (tmp_path / "empty").mkdir()
    error_of(lambda: fetch(tmp_path / "empty", remote(NOWHERE)))
    assert (tmp_path / "empty").is_dir()


def test_a_broken_file_stays_where_no_mirror_works(tmp_path):
    write(tmp_path, {"a": b"half"})
    error_of(lambda: fetch(tmp_path, remote(NOWHERE)))
    assert contents(tmp_path) == {"a": b"half"}


def test_a_server_that_never_answers_times_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/a"
        assert "(no answer within 0.1 seconds)" in error_of(lambda: fetch(tmp_path, remote(address)))
    assert time.monotonic() - start < 5


def failing(monkeypatch, error):
    """A download that writes some bytes, then fails."""

    def get(self, address, path, _):
        write(tmp := module.Path(path).parent, {module.Path(path).name: b"some"})
        assert tmp.is_dir()
        raise error

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", get)


def test_a_full_disk_is_not_blamed_on_the_server(tmp_path, monkeypatch):
    failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    message = error_of(lambda: fetch(tmp_path, remote(NOWHERE)))
    assert message.startswith(f"{tmp_path / 'a'} cannot be written (No space left on device)")
    assert "data_dir=" in message and contents(tmp_path) == {}


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch):
    failing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, remote(NOWHERE))
    assert contents(tmp_path) == {}


def test_what_a_killed_download_left_is_cleared_away_by_the_next(tmp_path, whole):
    write(tmp_path, {".a.123.tmp": b"half", ".b.123.tmp": b"another file's"})
    fetch(tmp_path, whole)
    assert set(contents(tmp_path)) == {"a", ".b.123.tmp"}


@pytest.mark.parametrize("in_the_way", ["data", "data/deep"])
def test_a_directory_that_cannot_be_written_is_named(tmp_path, server, whole, in_the_way):
    write((tmp_path / in_the_way).parent, {(tmp_path / in_the_way).name: b""})
    message = error_of(lambda: fetch(tmp_path / "data" / "deep", whole))
    assert str(tmp_path / in_the_way) in message and "data_dir=" in message and server.requested == []


def test_a_directory_in_a_files_place_is_an_error(tmp_path, whole):
    (tmp_path / "a").mkdir()
    assert f"{tmp_path / 'a'} cannot be read (Is a directory)" in error_of(lambda: fetch(tmp_path, whole))


def test_one_process_downloads_while_the_others_wait(tmp_path, monkeypatch):
    """Threads stand for processes: the lock is the opened file's."""
    began, waited, calls, lines = threading.Event(), threading.Event(), [], []

    def get(self, address, path, _):
        calls.append(address)
        began.set()
        assert waited.wait(60)
        module.Path(path).write_bytes(CONTENT)

    def printed(line, **_):
        lines.append(line)
        waited.set()

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", get)
    monkeypatch.setattr("vae_cli.system.locks.print", printed, raising=False)
    first = threading.Thread(target=fetch, args=(tmp_path, remote(NOWHERE)))
    first.start()
    assert began.wait(60)
    fetch(tmp_path, remote(NOWHERE))
    first.join()
    assert calls == [NOWHERE] and contents(tmp_path) == {"a": CONTENT}
    assert lines == ["letters: waiting for another process that is making it ready"]


def test_google_drive_is_asked_by_gdown_and_without_it_that_is_said(tmp_path, monkeypatch):
    drive = remote("gdrive:identity")
    monkeypatch.setitem(sys.modules, "gdown", None)
    message = error_of(lambda: fetch(tmp_path, drive))
    assert "from https://drive.google.com/uc?id=identity (it needs gdown: pip install gdown)" in message

    def get(id, output, quiet):
        assert id == "identity" and not quiet
        module.Path(output).write_bytes(CONTENT)

    monkeypatch.setitem(sys.modules, "gdown", SimpleNamespace(download=get))
    fetch(tmp_path, drive)
    assert contents(tmp_path) == {"a": CONTENT}


def test_another_checksum_than_md5_will_do(tmp_path, server, whole):
    import hashlib

    digest = hashlib.sha256(CONTENT).hexdigest()
    fetch(tmp_path, RemoteFile("a", f"sha256:{digest}", whole.mirrors))
    with pytest.raises(DataError, match="checksum sha256:0"):
        fetch(tmp_path, RemoteFile("b", f"sha256:{'0' * 64}", (server.address("b"),)))


def test_without_downloads_what_is_missing_is_named_and_nothing_is_asked_for(tmp_path, server, whole):
    with without_downloads():
        line = error_of(lambda: fetch(tmp_path / "data", whole))
        assert (
            line == f"letters is not in {tmp_path / 'data'} (a missing); name the directory that has it with data_dir="
        )
        assert server.requested == [] and not (tmp_path / "data").exists()
    fetch(tmp_path / "data", whole)
    with without_downloads():
        fetch(tmp_path / "data", whole)
    assert server.requested == ["a"]
