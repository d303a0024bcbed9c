"""Images and splits, in memory and mapped."""

import numpy as np
import pytest
import torch

from vae_cli.data import Images, Split
from vae_cli.data.images import CHUNK


@pytest.fixture(params=["in memory", "mapped"])
def images(request, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (40, 3, 2), dtype=np.uint8)
    if request.param == "mapped":
        np.save(tmp_path / "x.npy", values)
        values = np.load(tmp_path / "x.npy", mmap_mode="r")
    return Images(values, np.arange(40), factors=np.stack([np.arange(40), -np.arange(40)], 1))


def test_some_of_the_images_are_taken_and_joined_in_order(images):
    first, second = images.take(np.array([5, 3])), images.take(np.array([7]))
    split = Split.of(first.join(second), 255.0)
    assert len(split) == 3 and split.labels.tolist() == [5, 3, 7] and split.shape == (3, 2)
    assert torch.equal(split.select(slice(None)), torch.from_numpy(images.values[[5, 3, 7]].copy()))
    assert Split.of(first.take(np.array([1])), 255.0).labels.tolist() == [3]


def test_factors_go_where_their_images_go(images):
    split = Split.of(images.take(np.array([5, 3])).join(images.take(np.array([7]))), 255.0)
    assert split.factors.tolist() == [[5, -5], [3, -3], [7, -7]]
    assert Split.of(images, 255.0).spread(3).factors[:, 0].tolist() == [0, 19, 39]
    assert split.to(torch.device("meta")).factors.is_meta
    assert images.join(Images(images.values)).factors is None


def test_a_split_is_read_in_chunks_and_copied_to_a_device(images, monkeypatch):
    monkeypatch.setattr("vae_cli.data.images.CHUNK", 7 * 6)
    split = Split.of(images.take(np.arange(10, 40)), 255.0)
    assert [len(chunk) for chunk in split.chunks()] == [7, 7, 7, 7, 2]
    assert torch.equal(torch.cat(list(split.chunks())), split.select(slice(None)))
    assert torch.equal(next(split.chunks(every=2)), split.select(slice(7)))
    assert split.to(torch.device("meta")).images.shape == (30, 3, 2) and CHUNK > 42


def test_a_part_of_a_split_is_spread_evenly_over_it(images):
    split = Split.of(images, 255.0)
    part = split.spread(5)
    assert part.labels.tolist() == [0, 9, 19, 29, 39] and len(split.spread(50)) == 40
    assert torch.equal(part.select(slice(None)), split.select(torch.tensor([0, 9, 19, 29, 39])))
