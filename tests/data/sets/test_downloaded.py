"""Properties of every data set that comes as archives."""

import numpy as np
import pytest

from tests.support.archives import (
    CLASSES,
    COUNT,
    DECODED,
    MEMBERS,
    OWN,
    SETS,
    SHAPE,
    SUPPORT,
    drawing,
    made,
    picture,
    put,
    stored,
    trust,
)
from tests.support.files import contents, error_of, md5
from vae_cli.data import (
    CIFAR10,
    EMNIST,
    KMNIST,
    MNIST,
    SVHN,
    Caltech101Silhouettes,
    CelebA,
    FashionMNIST,
    Omniglot,
    OmniglotBurda,
)
from vae_cli.errors import ConfigError

each_set = pytest.mark.parametrize("dataset", SETS, ids=lambda dataset: dataset.name)
each_decoded_set = pytest.mark.parametrize("dataset", DECODED, ids=lambda dataset: dataset.name)
PUBLISHED = {dataset: dataset.files for dataset in SETS}


@each_set
def test_each_set_has_its_own_shape_and_support_with_whole_numbers_for_labels(tmp_path, dataset):
    put(dataset, tmp_path)
    source = dataset(str(tmp_path)).load()
    assert source.support == SUPPORT[dataset]
    assert (source.validation is None) == (dataset not in OWN)
    kind = np.float32 if source.support == "unit" else np.uint8
    for images, count in zip((source.train, source.test), COUNT[dataset]):
        assert stored(images).shape == (count, *SHAPE[dataset]) and stored(images).dtype == kind
        if CLASSES[dataset]:
            assert images.labels.shape == (count,) and images.labels.dtype == np.int64
        else:
            assert images.labels is None


@each_set
@pytest.mark.parametrize("binarize", ["none", "dynamic"])
def test_each_set_splits_into_train_validation_and_test(tmp_path, dataset, binarize):
    put(dataset, tmp_path)
    own = OWN.get(dataset, 0)
    train, test = COUNT[dataset]
    data = dataset(str(tmp_path), binarize=binarize, validation=None if own else 2).splits()
    sizes = (train, own, test) if own else (train - 2, 2, test)
    assert tuple(map(len, (data.train, data.validation, data.test))) == sizes
    facts = data.facts
    assert (facts.name, facts.shape, facts.classes) == (dataset.name, SHAPE[dataset], CLASSES[dataset])
    assert facts.support == (SUPPORT[dataset] if binarize == "none" else "binary") and facts.size == len(data.train)
    everything = dataset(str(tmp_path), validation=0).splits()
    assert everything.validation is None and len(everything.train) == train + own
    assert "dataset.validation=5000" in error_of(dataset(str(tmp_path), validation=5000).splits, ConfigError)


def test_defaults_are_those_of_the_literature():
    defaults = {dataset: (dataset().binarize, dataset().validation) for dataset in (*SETS, MNIST, FashionMNIST, KMNIST)}
    assert defaults.pop(Omniglot) == ("dynamic", 1000) and defaults.pop(OmniglotBurda) == ("dynamic", 1345)
    assert defaults.pop(CelebA) == defaults.pop(Caltech101Silhouettes) == ("none", None)
    assert defaults.pop(MNIST) == ("dynamic", 5000) and set(defaults.values()) == {("none", 5000)}
    assert (EMNIST().subset, Omniglot().image_size, CelebA().image_size) == ("balanced", 28, 64)


def test_addresses_and_checksums_are_those_that_torchvision_knows():
    import torchvision.datasets as original

    def published(dataset):
        return {file.name: (file.checksum.removeprefix("md5:"), *file.mirrors) for file in PUBLISHED[dataset]}

    assert published(EMNIST) == {"gzip.zip": (original.EMNIST.md5, original.EMNIST.url)}
    binary = original.CIFAR10.url.replace("python", "binary")  # which torchvision does not read
    assert published(CIFAR10) == {"cifar-10-binary.tar.gz": ("c32a1d4ab5d03f1284b67883e8d87530", binary)}
    parts = [original.SVHN.split_list[part] for part in ("train", "test")]
    assert published(SVHN) == {file: (digest, url) for url, file, digest in parts}
    prefix = original.Omniglot.download_url_prefix
    sums = original.Omniglot.zips_md5.items()
    assert published(Omniglot) == {f"{part}.zip": (digest, f"{prefix}/{part}.zip") for part, digest in sums}
    drive = {name: (digest, f"gdrive:{identity}") for identity, digest, name in original.CelebA.file_list}
    assert published(CelebA) == {name: drive[name] for name in made()[CelebA]}
    for dataset in (MNIST, FashionMNIST, KMNIST):
        theirs = getattr(original, dataset.__name__)
        assert [(file.name, file.checksum[4:]) for file in dataset.remote.values()] == theirs.resources
        assert all(f.mirrors == tuple(f"{m}{f.name}" for m in theirs.mirrors) for f in dataset.remote.values())


@each_set
def test_archives_are_downloaded_where_they_belong_once_and_nothing_else_is_written_there(tmp_path, site, dataset):
    data = tmp_path / "data"
    for _ in range(2):
        assert len(dataset(str(data)).load().train) == COUNT[dataset][0]
    assert contents(data / dataset.subfolder) == made()[dataset]
    assert sorted(site.requested) == sorted(made()[dataset])


def test_without_a_data_dir_archives_go_into_the_cache(tmp_path):
    CIFAR10().load()
    assert contents(tmp_path / "cache" / "vae_cli") == made()[CIFAR10]


@each_set
def test_a_broken_archive_is_never_opened_and_replaced_alone(tmp_path, site, capsys, dataset):
    name, content = next(iter(made()[dataset].items()))
    folder = put(dataset, tmp_path / "data", made()[dataset] | {name: content + b"x"})
    site.cut = True
    assert f"put {name} ({md5(content)}) into {folder} by hand" in error_of(dataset(str(tmp_path / "data")).load)
    site.cut = False
    site.requested.clear()
    assert len(dataset(str(tmp_path / "data")).load().train) == COUNT[dataset][0]
    assert contents(folder) == made()[dataset] and site.requested == [name]
    assert f"{dataset.name}: {folder / name} is broken" in capsys.readouterr().err


@each_set
@pytest.mark.parametrize(
    "damaged", [lambda content: content[: len(content) // 2], lambda content: b"<html>log in</html>"]
)
def test_an_archive_that_cannot_be_read_though_its_checksum_is_right_is_named(tmp_path, monkeypatch, dataset, damaged):
    name, content = next(iter(made()[dataset].items()))
    files = made()[dataset] | {name: damaged(content)}
    trust(monkeypatch, dataset, files)
    message = error_of(dataset(str(put(dataset, tmp_path, files) and tmp_path)).load)
    assert str(tmp_path / dataset.subfolder / name) in message and "delete it to have it downloaded again" in message


@pytest.mark.parametrize("dataset", MEMBERS, ids=lambda dataset: dataset.name)
def test_members_that_climb_out_are_written_nowhere(tmp_path, monkeypatch, dataset):
    name, members, packed = MEMBERS[dataset]
    ways = ("..", "../..", "../../..", str(tmp_path), "img_align_celeba/../..")
    evil = {f"{way}/evil{suffix}": picture(drawing(0), "PNG") for way in ways for suffix in ("", ".png", ".gz")}
    files = {**made()[dataset], name: packed(members() | evil)}
    trust(monkeypatch, dataset, files)
    data = tmp_path / "deep" / "down" / "data"
    put(dataset, data, files)
    before = contents(tmp_path / "deep")
    dataset(str(data)).load()
    assert contents(tmp_path / "deep") == before and not list(tmp_path.rglob("*evil*"))


# Sets that are decoded once


@each_decoded_set
def test_a_second_start_maps_what_the_first_has_decoded(tmp_path, capsys, dataset):
    put(dataset, tmp_path / "data")
    first = dataset(str(tmp_path / "data")).load()
    assert ".zip: decoding" in capsys.readouterr().err
    second = dataset(str(tmp_path / "data")).load()
    assert isinstance(second.train.values, np.memmap) and isinstance(second.test.values, np.memmap)
    assert np.array_equal(stored(first.train), stored(second.train))
    assert capsys.readouterr() == ("", "")
    assert any(path.name.startswith(dataset.name) for path in (tmp_path / "cache" / "vae_cli" / "decoded").iterdir())


@each_decoded_set
def test_another_size_is_decoded_beside_the_first(tmp_path, capsys, dataset):
    put(dataset, tmp_path)
    for decodings in (1, 0):
        for size in (12, 20):
            assert dataset(str(tmp_path), image_size=size).load().train.values.shape[-2:] == (size, size)
            assert ("decoding" in capsys.readouterr().err) == decodings


def test_another_archive_is_decoded_anew(tmp_path, monkeypatch):
    put(Omniglot, tmp_path)
    before = np.array(Omniglot(str(tmp_path)).load().train.values)
    name, members, packed = MEMBERS[Omniglot]
    changed = members() | {"images_background/Greek/character01/0001_01.png": picture(drawing(15), "PNG")}
    files = {**made()[Omniglot], name: packed(changed)}
    trust(monkeypatch, Omniglot, files)
    put(Omniglot, tmp_path, files)
    differ = (Omniglot(str(tmp_path)).load().train.values != before).any((1, 2, 3))
    assert differ.tolist() == [True] + [False] * 5


@each_decoded_set
def test_a_cache_that_cannot_be_written_is_named(tmp_path, dataset):
    put(dataset, tmp_path / "data")
    (tmp_path / "cache").touch()
    message = error_of(dataset(str(tmp_path / "data")).load)
    assert str(tmp_path / "cache" / "vae_cli") in message and "XDG_CACHE_HOME=" in message
