"""IDX files: a broken one is named with what is wrong and the fix."""

import gzip

import numpy as np
import pytest

from tests.support.files import error_of
from tests.support.mnist import files, put
from vae_cli.data import MNIST
from vae_cli.data.sets import idx, mnist

IMAGES = mnist.FILES[0]
DAMAGE = {
    "truncated": (IMAGES, lambda data: data[:-100], "bytes where 30x28x28 values need"),
    "too long": (IMAGES, lambda data: data + b"x", "bytes where"),
    "empty": (IMAGES, lambda data: b"", "it is empty"),
    "cut in the header": (IMAGES, lambda data: data[:10], "within its header"),
    "wrong magic": (IMAGES, lambda data: b"<htm" + data[4:], "no IDX file"),
    "labels for images": (IMAGES, lambda data: idx.encode(np.zeros(30, np.uint8)), "no IDX file"),
    "wrong size": (IMAGES, lambda data: idx.encode(np.zeros((30, 27, 28), np.uint8)), "30x27x28"),
    "no images": (IMAGES, lambda data: idx.encode(np.zeros((0, 28, 28), np.uint8)), "0x28x28"),
    "broken gzip": (IMAGES, lambda data: gzip.compress(data)[:-50], "broken gzip"),
    "garbled gzip": (IMAGES, lambda data: gzip.compress(data)[:20] + bytes(500), "broken gzip"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_file_is_named_with_what_is_wrong_and_the_fix(tmp_path, damage):
    name, change, complaint = DAMAGE[damage]
    raw = put(tmp_path / "MNIST" / "raw", {name: change(files()[name])})
    message = error_of(MNIST(str(tmp_path)).load)
    assert str(raw / name) in message and complaint in message
    assert "delete it to have it downloaded again" in message
