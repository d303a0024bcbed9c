"""What the processes do that torchrun has started: the first reads the command line and speaks, the others follow."""

import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from vae_cli.distributed.processes import Processes
from vae_cli.errors import INTERRUPTED, guard, one_line


def lead(processes: Processes, train: Callable[[], int]) -> int:
    """Trains as the first of several processes: whatever there is to say, it says."""
    status = 1
    try:
        status = guard("vae-train", train)
    except SystemExit as stop:
        if stop.code == 128 + signal.SIGTERM:
            print("vae-train: ended by SIGTERM, which torchrun sends when another process has gone", file=sys.stderr)
        raise
    finally:
        processes.dismiss(status)
    return _ended(processes, status)


def follow(processes: Processes) -> int:
    """Trains as another of several processes; silent, unless the first is no longer there to say what went wrong."""
    warnings.simplefilter("ignore")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        if not processes.is_called():
            return processes.status()
        status = _join(processes)
        if status:  # an end that torchrun would hasten for the first process, which is still writing
            processes.status()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, once a process is gone
        if "1" in (os.environ.get("VAE_TRACEBACK"), os.environ.get("HYDRA_FULL_ERROR")):
            traceback.print_exc()
        unsaid = processes.give_up(error, one_line(error))
        if unsaid is not None:
            print(f"vae-train: error: {unsaid}", file=sys.stderr)
        processes.take_leave()
        return _ended(processes, 1)
    finally:
        processes.take_leave()


def _join(processes: Processes) -> int:
    from vae_cli.system import threads
    from vae_cli.training import run

    threads.tune()
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return run.join(processes)


def _ended(processes: Processes, status: int) -> int:
    """The status; a process that has lost another ends here, before its interpreter waits for it."""
    if processes.is_broken:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status
