"""CIFAR-10: its batches."""

import numpy as np

from tests.support.archives import MEMBERS, cifar_batch, cifar_members, put
from tests.support.files import error_of, write
from vae_cli.data import CIFAR10

ARCHIVE = MEMBERS[CIFAR10][0]


def test_five_batches_in_order_and_a_test_batch(tmp_path):
    put(CIFAR10, tmp_path)
    source = CIFAR10(str(tmp_path)).load()
    batches = [cifar_batch(number) for number in range(6)]
    assert np.array_equal(source.train.values.reshape(-1, 3072), np.concatenate([data for data, _ in batches[:5]]))
    assert source.train.labels.tolist() == sum((labels for _, labels in batches[:5]), [])
    assert np.array_equal(source.test.values.reshape(-1, 3072), batches[5][0])
    assert source.test.labels.tolist() == batches[5][1]


def test_an_archive_that_lacks_a_batch_is_named(tmp_path, with_members):
    kept = {name: content for name, content in cifar_members().items() if not name.endswith("_4.bin")}
    assert f"{tmp_path / 'data' / ARCHIVE} cannot be read" in error_of(with_members(kept))


def test_a_link_in_the_tar_file_is_not_followed_out_of_it(tmp_path, with_members):
    members, first = cifar_members(), "cifar-10-batches-bin/data_batch_1.bin"
    write(tmp_path, {"secret": members.pop(first)})
    assert "cannot be read" in error_of(with_members(members, {first: str(tmp_path / "secret")}))


def test_a_batch_that_is_cut_short_is_named(tmp_path, with_members):
    members = cifar_members()
    members["cifar-10-batches-bin/data_batch_2.bin"] = members["cifar-10-batches-bin/data_batch_2.bin"][:-1]
    assert f"{tmp_path / 'data' / ARCHIVE} cannot be read" in error_of(with_members(members))
