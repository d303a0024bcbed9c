"""Batches of a split: their order, their pixels, and how they are read."""

import threading

import numpy as np
import pytest
import torch

from vae_cli import noise
from vae_cli.data import Arrays, Split, batches
from vae_cli.data.batches import Batches, moments, pixels

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


def split(n=10, dynamic=False):
    values = torch.arange(n, dtype=torch.uint8).mul(20)[:, None, None, None].expand(n, 1, 2, 2).contiguous()
    return Split(values, torch.arange(n), 255.0, dynamic)


@pytest.fixture
def mapped_file(tmp_path):
    path = tmp_path / "large.npy"
    np.save(path, RNG.integers(0, 256, (16_000, 1, 64, 64), dtype=np.uint8))
    return path


def test_an_epoch_visits_every_image_once_in_an_order_of_its_own():
    batches = Batches(split(), 3, seed=0)
    assert len(batches) == 4
    orders = [torch.cat([y for _, (_, y) in batches.epoch(e)]).tolist() for e in (0, 1, 0)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert orders[0] == orders[2] != orders[1]
    rest = torch.cat([y for _, (_, y) in batches.epoch(0, start=2)]).tolist()
    assert rest == orders[0][6:]


def test_pixels_are_bytes_over_255():
    torch.testing.assert_close(pixels(split(), torch.tensor([3]), CPU)[0, 0, 0, 0], torch.tensor(60 / 255))


def test_dynamic_binarization_draws_anew_with_the_pixels_as_probabilities():
    bytes_ = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 1, 100, 101)
    many = Split(bytes_, None, 255.0, dynamic=True)
    first = pixels(many, slice(None), CPU, noise.generator(0, "a"))
    assert first.dtype == torch.float32 and set(first.unique().tolist()) == {0.0, 1.0}
    means, p = first.mean((1, 2, 3)), torch.arange(256) / 255
    assert means[0] == 0 and means[255] == 1
    deviations = (means - p)[1:-1] / (p * (1 - p) / 10_100).sqrt()[1:-1]
    assert deviations.abs().max() < 5 and abs(deviations.mean()) < 5 / 16 and 0.8 < deviations.std() < 1.2
    assert abs(np.corrcoef(first[128].flatten()[:-1], first[128].flatten()[1:])[0, 1]) < 0.05
    assert not torch.equal(first, pixels(many, slice(None), CPU, noise.generator(0, "b")))


def test_binarization_of_floats_and_odd_numbers_of_pixels():
    floats = Split(torch.tensor([0.0, 0.3, 1.0])[:, None, None, None].expand(3, 1, 99, 101), None, 1.0, dynamic=True)
    means = pixels(floats, slice(None), CPU, noise.generator(0, "a")).mean((1, 2, 3))
    assert means[0] == 0 and means[2] == 1 and abs(means[1] - 0.3) < 5 * 0.46 / 100


def test_moments_are_numpys(monkeypatch):
    images = torch.randint(0, 256, (50, 2, 3, 3), dtype=torch.uint8)
    monkeypatch.setattr("vae_cli.data.images.CHUNK", 7 * images[0].numel())
    mean, std = moments(Split(images, None, 255.0))
    np.testing.assert_allclose(mean, images.numpy().mean(0) / 255, rtol=1e-5)
    np.testing.assert_allclose(std, images.numpy().std(0) / 255, rtol=1e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_batches_of_a_mapped_set_are_those_of_the_same_set_in_memory(tmp_path, layout):
    values = RNG.integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", values if layout == "NHWC" else values.transpose(0, 3, 1, 2))
    train = Arrays(str(tmp_path / "x.npy")).splits().train
    assert train.mapped and train.rows is not None
    resident = Split(train.select(slice(None)).clone(), None, 255.0)
    for (a, (x, _)), (b, (y, _)) in zip(
        Batches(train, 32, 0).epoch(3, start=2), Batches(resident, 32, 0).epoch(3, start=2)
    ):
        assert a == b and torch.equal(x, y)


def test_batches_are_read_ahead_in_the_background_and_left_when_nobody_asks(mapped_file, monkeypatch):
    split, threads = Arrays(str(mapped_file)).splits().train, set()
    select = Split.select

    def seen(self, index):
        threads.add(threading.current_thread().name.partition("_")[0])
        return select(self, index)

    monkeypatch.setattr(Split, "select", seen)
    read = []
    monkeypatch.setattr(Batches, "_read", lambda self, index: (read.append(1), (index, self.split.select(index)))[1])
    stream = Batches(split, 100, 0).epoch(0)
    next(stream)
    stream.close()
    assert threads == {"batches"} and len(read) <= batches.AHEAD + 1


def test_what_lies_on_an_accelerator_is_selected_there_and_the_rest_is_pinned_and_read_ahead(monkeypatch):
    """With fake tensors, which know their device and nothing else."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    ahead = []
    monkeypatch.setattr(batches, "_read_ahead", lambda read, parts: ahead.append(read) or iter(()))
    with FakeTensorMode(allow_non_fake_inputs=True):
        resident = Batches(Split(torch.zeros(8, 1, 4, 4, device="cuda:0"), None, 1.0), 4, 0, torch.device("cuda"))
        list(resident._selected([torch.zeros(4, dtype=torch.long, device="cuda:0")]))
        assert not ahead
    list(Batches(Split(torch.zeros(8, 1, 4, 4), None, 1.0), 4, 0, torch.device("cuda"))._selected([]))
    assert len(ahead) == 1


def test_a_reading_error_in_the_background_reaches_the_training(mapped_file, monkeypatch):
    split = Arrays(str(mapped_file)).splits().train

    def fail(self, index):
        raise OSError("the disk is gone")

    monkeypatch.setattr(Split, "select", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        next(Batches(split, 100, 0).epoch(0))


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 4, 4)])
def test_an_example_has_any_shape(shape):
    values = torch.randint(0, 256, (10, *shape), dtype=torch.uint8)
    whole = Split(values, None, 255.0)
    assert whole.shape == shape and moments(whole)[0].shape == shape
    seen = torch.cat([x for _, (x, _) in Batches(whole, 4, 0).epoch(0)])
    assert seen.shape == (10, *shape) and torch.allclose(seen.sum(), values.sum() / 255)


def test_ranks_share_every_batch_in_its_order():
    whole = [y for _, (_, y) in Batches(split(), 4, seed=0).epoch(0)]
    ranks = [Batches(split(), 4, seed=0, rank=rank, world_size=3) for rank in range(3)]
    for number, y in enumerate(whole):
        parts = [y[batches.part(number)] for batches in ranks if batches.weight(number)]
        assert torch.equal(torch.cat(parts), y) and sum(batches.weight(number) for batches in ranks) == 1
    assert [len(y) for _, (_, y) in ranks[0].epoch(0)] == [1, 1, 1], "a rank without a part gets one image"


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_of_every_batch_are_the_batch(count):
    values = torch.arange(10, dtype=torch.uint8).mul(20)[:, None, None, None].expand(10, 1, 9, 9).contiguous()
    split = Split(values, torch.arange(10), 255.0, dynamic=True)
    whole = list(Batches(split, 4, seed=0).epoch(3))
    each = [Batches(split, 4, 0, rank=rank, world_size=count) for rank in range(count)]
    parts = [list(batches.epoch(3)) for batches in each]
    assert [len(part[0][1][0]) for part in parts] == [batches.whole for batches in each]
    for number, (x, y) in whole:
        weights = [batches.weight(number) for batches in each]
        assert sum(weights) == pytest.approx(1)
        shares = [part[number][1] for part, weight in zip(parts, weights) if weight > 0]
        assert torch.equal(torch.cat([images for images, _ in shares]), x)
        assert torch.equal(torch.cat([labels for _, labels in shares]), y)
