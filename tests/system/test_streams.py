"""Standard streams that never end a run."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vae_cli.system import streams


@pytest.fixture
def stdout(monkeypatch):
    """Make an open descriptor this process's standard output, as Python does at its start."""

    def use(descriptor, encoding="utf-8"):
        stream = os.fdopen(descriptor, "w", encoding=encoding)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "__stdout__", stream)
        streams.prepare()

    return use


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "28?28 ? ?"), ("cp1252", "28×28 ? ?"), ("utf-8", "28×28 ? ∞")]
)
def test_a_character_that_the_encoding_lacks_becomes_a_question_mark(encoding, shown, stdout, tmp_path):
    path = tmp_path / "out"
    stdout(os.open(path, os.O_WRONLY | os.O_CREAT), encoding)
    print("28×28 \udcff ∞")
    assert streams.flush() is None and path.read_text(encoding=encoding) == f"{shown}\n"


def test_a_reader_that_has_gone_takes_nothing_and_ends_nothing(stdout):
    read, write = os.pipe()
    os.close(read)
    stdout(write)
    for _ in range(2):
        print("lost", flush=True)
    assert isinstance(streams.flush(), BrokenPipeError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_without_room_ends_nothing_and_is_known(stdout):
    stdout(os.open("/dev/full", os.O_WRONLY))
    print("lost")
    failure = streams.flush()
    assert failure is not None and failure.errno == errno.ENOSPC


def test_a_closed_stream_is_one_into_nothing(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    streams.prepare()
    print("×\udcff", flush=True)
    print("×\udcff", file=sys.stderr)
    assert sys.stdin.read() == "" and streams.flush() is None and os.get_inheritable(sys.stdout.fileno())


def test_what_other_code_made_of_the_streams_stays_and_twice_is_once(monkeypatch, stdout, tmp_path):
    stdout(os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT))
    prepared, captured = sys.stdout, sys.stderr
    streams.prepare()
    assert sys.stdout is prepared and sys.stderr is captured


@pytest.mark.parametrize(("is_read", "answer"), [(True, "True"), (False, "False")])
def test_a_pipe_that_nobody_reads_is_known_before_anything_is_written(is_read, answer):
    code = (
        "import sys; from vae_cli.system import streams; sys.stdin.read(); sys.stderr.write(str(streams.has_reader()))"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        if not is_read:
            process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == answer


@pytest.mark.parametrize("closed", [(1,), (2,), (0,), (0, 1, 2)])
def test_a_closed_descriptor_is_taken_by_no_file(closed, tmp_path):
    code = "import os; from vae_cli.system import streams; streams.prepare(); print(os.open('f', os.O_CREAT) > 2)"
    shell = f"{sys.executable} -c \"{code}; open('answer', 'w').write(str(os.open('f', os.O_RDONLY) > 2))\""
    subprocess.run(["sh", "-c", " ".join([shell, *(f"{number}>&-" for number in closed)])], cwd=tmp_path, check=True)
    assert (tmp_path / "answer").read_text() == "True"
