"""A small MNIST, in the format of the real one."""

import gzip
from functools import cache

import numpy as np

from tests.support.files import md5, write
from vae_cli.data.download import RemoteFile
from vae_cli.data.sets import idx, mnist

TRAIN, TEST = 30, 10


@cache
def arrays():
    """Images and labels for training and the test, by the names of the files."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (count, 28, 28), dtype=np.uint8) for count in (TRAIN, TEST)]
    labels = [rng.integers(0, 10, count, dtype=np.uint8) for count in (TRAIN, TEST)]
    return dict(zip(mnist.FILES, (images[0], labels[0], images[1], labels[1])))


@cache
def files():
    return {name: idx.encode(values) for name, values in arrays().items()}


@cache
def packed():
    return {f"{name}.gz": gzip.compress(content, 1) for name, content in files().items()}


def put(folder, changed=None, gzipped=False):
    """Write the four files, some of them changed."""
    contents = files() | (changed or {})
    return write(folder, {f"{k}.gz": gzip.compress(v, 1) for k, v in contents.items()} if gzipped else contents)


def serve(monkeypatch, dataset, server):
    """Let the server pass for the dataset's mirror, behind one that refuses connections."""
    server.files |= packed()
    remote = {
        name.removesuffix(".gz"): RemoteFile(name, md5(content), ("http://127.0.0.1:1/a", server.address(name)))
        for name, content in packed().items()
    }
    monkeypatch.setattr(dataset, "remote", remote)
