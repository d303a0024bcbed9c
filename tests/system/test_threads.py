"""How a process is set up for computing."""

import subprocess
import sys


def test_numbers_too_small_for_full_precision_count_as_zero_in_every_thread():
    """A million products of 10⁻³⁰ and 10⁻¹⁰, shared among threads, in a process of its own."""
    code = (
        "from vae_cli.system import threads; threads.tune()\n"
        "import torch; torch.set_num_threads(2)\n"
        "x = torch.full((1_000_000,), 1e-30); y = torch.full((1_000_000,), 1e-10)\n"
        "assert 1e-30 * 1e-10 > 0 and float((x * y).abs().sum()) == 0 and int((x * y != 0).sum()) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
