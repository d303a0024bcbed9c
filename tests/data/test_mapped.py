"""Sets that stay on the disk."""

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from vae_cli.data import Arrays
from vae_cli.data.images import Images

RNG = np.random.default_rng(0)


@pytest.fixture
def mapped_file(tmp_path):
    path = tmp_path / "large.npy"
    np.save(path, RNG.integers(0, 256, (16_000, 1, 64, 64), dtype=np.uint8))
    return path


def peak_of(act):
    tracemalloc.start()
    result = act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return result, peak


@pytest.mark.parametrize("binarize", ["none", "threshold", "static", "dynamic"])
def test_splitting_a_mapped_file_copies_none_of_it(mapped_file, binarize):
    data, peak = peak_of(lambda: Arrays(str(mapped_file), binarize=binarize).splits())
    assert data.train.mapped and peak < mapped_file.stat().st_size / 3
    in_memory = np.load(mapped_file)
    plain = Arrays(str(mapped_file), binarize=binarize)
    source = plain.load()
    plain.load = lambda: type(source)(Images(in_memory), None, None, "levels256")
    expected = plain.splits()
    for name in ("train", "validation", "test"):
        part, other = getattr(data, name), getattr(expected, name)
        assert torch.equal(part.select(slice(None)), other.select(slice(None))) and part.scale == other.scale


def test_floats_of_another_kind_are_converted_on_the_disk(tmp_path):
    values = RNG.random((3000, 1, 32, 32))
    np.save(tmp_path / "x.npy", values.astype(">f8"))
    source, peak = peak_of(lambda: Arrays(str(tmp_path / "x.npy")).load())
    assert source.train.values.dtype == np.float32 and isinstance(source.train.values, np.memmap)
    np.testing.assert_allclose(source.train.values, values, rtol=1e-6)
    assert peak < values.nbytes / 2


LARGE = """
import resource, sys, torch
from itertools import islice
from vae_cli.data import Arrays
from vae_cli.data.batches import Batches, moments
status = next(line for line in open("/proc/self/status") if line.startswith("VmData"))
limit = int(status.split()[1]) * 1024 + 280 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
for binarize in ("none", "static"):
    train = Arrays(sys.argv[1], binarize=binarize).splits().train
    moments(train)
    print(sum(float(x.mean()) for _, (x, _) in islice(Batches(train, 100, 0).epoch(0), 20)))
try:
    train.images.clone()
except RuntimeError:
    print("no room for a copy")
"""


@pytest.mark.slow
def test_a_set_is_split_and_read_where_there_is_no_room_for_a_copy_of_it(tmp_path):
    """330 MB of images where private memory may grow by 290 MB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    path = tmp_path / "large.npy"
    np.save(path, RNG.integers(0, 256, (80_000, 1, 64, 64), dtype=np.uint8))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    command = [sys.executable, "-c", LARGE, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    *means, last = done.stdout.splitlines()
    assert len(means) == 2 and all(abs(float(mean) / 20 - 0.5) < 0.01 for mean in means), done.stderr
    assert last == "no room for a copy"
