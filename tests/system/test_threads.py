"""Threads and GPUs of a process, alone and beside others."""

import os
import subprocess
import sys

import torch

from vae_cli.system import threads


def test_the_number_of_threads_is_put_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with threads.restored_threads():
        threads.use_threads(3)
        threads.use_threads(None)
        assert torch.get_num_threads() == 3 and os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "3"
    assert torch.get_num_threads() == before
    assert os.environ["OMP_NUM_THREADS"] == "2" and "MKL_NUM_THREADS" not in os.environ


def test_slurms_share_counts_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert threads.slurm_threads() is None
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert threads.slurm_threads() == 4
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads.slurm_threads() is None


def test_jobs_take_a_gpu_each_and_give_it_back(monkeypatch, tmp_path):
    monkeypatch.setattr(threads.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-a,GPU-b,5")
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    with threads.reserved_gpu("auto", 0), threads.reserved_gpu("cuda", 3), threads.reserved_gpu("auto", 1) as third:
        assert chosen == [0, 1, 2] and third == 2
        with threads.reserved_gpu("auto", 4) as shared:
            assert shared == 1
    with threads.reserved_gpu("auto", 1), threads.reserved_gpu("cuda:0", 1) as fixed:
        assert chosen == [0, 1, 2, 1, 1] and fixed is None
    with threads.reserved_gpu("cpu", 1) as none:
        assert none is None


def test_numbers_too_small_for_full_precision_count_as_zero_in_every_thread():
    """A million products of 10⁻³⁰ and 10⁻¹⁰, shared among threads, in a process of its own."""
    code = (
        "from vae_cli.system import threads; threads.tune()\n"
        "import torch; torch.set_num_threads(2)\n"
        "x = torch.full((1_000_000,), 1e-30); y = torch.full((1_000_000,), 1e-10)\n"
        "assert 1e-30 * 1e-10 > 0 and float((x * y).abs().sum()) == 0 and int((x * y != 0).sum()) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
