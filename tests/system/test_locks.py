"""Locks on files, among processes."""

import subprocess
import sys

import pytest
from filelock import FileLock

from vae_cli.system.locks import file_lock, is_locked

HOLD = """
import sys
from pathlib import Path
from vae_cli.system.locks import file_lock
with file_lock(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock until it reads a line."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "lock")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate(timeout=30)


def test_one_process_has_the_lock_and_the_others_see_it(tmp_path, holder):
    assert is_locked(tmp_path / "lock")
    with file_lock(tmp_path / "lock") as is_ours:
        assert not is_ours


def test_a_lock_ends_with_its_process_and_the_file_it_leaves_blocks_nobody(tmp_path, holder):
    holder.kill()
    holder.wait(30)
    assert (tmp_path / "lock").exists() and not is_locked(tmp_path / "lock")
    with file_lock(tmp_path / "lock") as is_ours:
        assert is_ours and is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")


def test_who_waits_says_so_on_stderr_and_gets_the_lock(tmp_path, holder):
    command = [sys.executable, "-c", HOLD.replace("1])", "1]), wait=True, title='letters'"), str(tmp_path / "lock")]
    waiting = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stderr.readline() == "letters: waiting for another process that is making it ready\n"
    holder.communicate("\n", timeout=30)
    assert waiting.communicate("\n", timeout=30) == ("True\n", "")


def test_looking_takes_the_lock_from_nobody(tmp_path):
    assert not is_locked(tmp_path / "none") and not list(tmp_path.iterdir())
    with file_lock(tmp_path / "lock"):
        assert is_locked(tmp_path / "lock") and is_locked(tmp_path / "lock")


def test_where_there_are_no_locks_everybody_goes_on(tmp_path, monkeypatch):
    (tmp_path / "file").touch()

    def impossible(lock, **options):
        raise OSError(37, "No locks available")

    with file_lock(tmp_path / "file" / "lock") as is_ours:
        assert is_ours
    monkeypatch.setattr(FileLock, "acquire", impossible)
    with file_lock(tmp_path / "lock", wait=True) as first, file_lock(tmp_path / "lock") as second:
        assert first and second
