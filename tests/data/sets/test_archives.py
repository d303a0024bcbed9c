"""Data sets out of archives: EMNIST, CIFAR-10, SVHN, Omniglot, CelebA; KMNIST; and how archives are downloaded."""

import errno
import gzip
import hashlib
import io
import os
import pickle
import socket
import struct
import sys
import tarfile
import threading
import time
import zipfile
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vae_cli.data import CIFAR10, EMNIST, KMNIST, SVHN, CelebA, Omniglot
from vae_cli.data.download import mirrors
from vae_cli.data.download.mirrors import archives
from vae_cli.data.sets import celeba, idx, mnist
from vae_cli.data.sets import omniglot as omniglot_module
from vae_cli.errors import ConfigError, DataError

SETS = (EMNIST, CIFAR10, SVHN, Omniglot, CelebA)
DECODED = (Omniglot, CelebA)
SHAPE = {
    EMNIST: (1, 28, 28),
    CIFAR10: (3, 32, 32),
    SVHN: (3, 32, 32),
    Omniglot: (1, 28, 28),
    CelebA: (3, 64, 64),
}
COUNT = {EMNIST: (62, 27), CIFAR10: (20, 4), SVHN: (20, 10), Omniglot: (6, 4), CelebA: (5, 2)}
CLASSES = {EMNIST: 47, CIFAR10: 10, SVHN: 10, Omniglot: 5, CelebA: 0}
FOLDER = {EMNIST: "EMNIST/raw", CIFAR10: ".", SVHN: ".", Omniglot: "omniglot-py", CelebA: "celeba"}
GZIP_ZIP, CIFAR_TAR = "gzip.zip", "cifar-10-python.tar.gz"
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
MATS = ("train_32x32.mat", "test_32x32.mat")
FACES, FACES_PARTITION = "img_align_celeba.zip", "list_eval_partition.txt"
SUBSETS = ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")
REAL_SUMS = {dataset: dict(dataset.sums) for dataset in SETS}
PARTITION = (0, 2, 0, 1, 0, 1, 2, 0, 1, 0)
DAY = 24 * 3600

each_set = pytest.mark.parametrize("dataset", SETS, ids=lambda dataset: dataset.name)
each_decoded_set = pytest.mark.parametrize("dataset", DECODED, ids=lambda dataset: dataset.name)


# Archives like the real ones, but small


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members, links=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name in links:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, links[name]
            archive.addfile(link)
    return buffer.getvalue()


def picture(values, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, kind, **options)
    return buffer.getvalue()


def emnist_classes(subset):
    return {"byclass": 62, "letters": 26, "digits": 10, "mnist": 10}.get(subset, 47)


def emnist_part(subset, part):
    """Upright images, and labels as the files have them."""
    count = COUNT[EMNIST][part == "test"]
    classes = emnist_classes(subset)
    labels = np.arange(count) % classes + (subset == "letters")
    return noise(count, 28, 28), labels.astype(np.uint8)


@cache
def emnist_files():
    """The unpacked files, by name."""
    found = {}
    for subset in SUBSETS:
        for part in ("train", "test"):
            images, labels = emnist_part(subset, part)
            stem = f"emnist-{subset}-{part}"
            found[f"{stem}-images-idx3-ubyte"] = idx.encode(np.ascontiguousarray(images.transpose(0, 2, 1)))
            found[f"{stem}-labels-idx1-ubyte"] = idx.encode(labels)
    return found


def emnist_members():
    return {f"gzip/{name}.gz": gzip.compress(content, 1) for name, content in emnist_files().items()}


def python2(value):
    """What Python 2's protocol 2 made of a string, a small number, a list, a dictionary or an array."""
    if isinstance(value, str):
        return b"U" + bytes([len(value)]) + value.encode()
    if isinstance(value, int):
        return b"K" + bytes([value])
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(item) for key, item in value.items()) + b"u"
    if isinstance(value, bytes):
        return value
    raw, code = value.tobytes(), value.dtype.str[1:].encode()
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in value.shape) + b"t"
    dtype = b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R(K\x03U\x01|NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return made + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"


def python2_pickle(value):
    return b"\x80\x02" + python2(value) + b"."


def cifar_batch(number):
    """One of six batches, the last for the test."""
    return np.roll(noise(4, 3072), number), [(4 * number + k) % 10 for k in range(4)]


def cifar_members():
    found = {"cifar-10-batches-py/batches.meta": python2_pickle({"label_names": ["airplane", "truck"]})}
    for number, name in enumerate(BATCHES):
        data, labels = cifar_batch(number)
        content = {"batch_label": name, "labels": labels, "data": data, "filenames": ["a.png"] * 4}
        found[f"cifar-10-batches-py/{name}"] = python2_pickle(content)
    return found


def svhn_part(file):
    """Images (32, 32, 3, N) and labels from 1 to 10, as in the files."""
    count = COUNT[SVHN][file.startswith("test")]
    return noise(32, 32, 3, count), (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]


def svhn_file(file):
    from scipy.io import savemat

    buffer = io.BytesIO()
    images, labels = svhn_part(file)
    savemat(buffer, {"X": images, "y": labels}, do_compression=True)
    return buffer.getvalue()


def drawing(number):
    """Black on white, True where it is white."""
    values = np.ones((105, 105), bool)
    values[20 + number : 60, 30:35] = False
    values[60:64, 30 : 80 - number] = False
    return values


CHARACTERS = {
    "images_background": ("Greek/character01", "Greek/character02", "Latin/character01"),
    "images_evaluation": ("Atlantean/character01", "Oriya/character01"),
}


def omniglot_members(part):
    found = {f"{part}/": b"", f"__MACOSX/{part}/Greek/character01/._0001_01.png": b"no picture"}
    for number, character in enumerate(CHARACTERS[part]):
        for drawer in (1, 2):
            name = f"{part}/{character}/{number + 1:04}_{drawer:02}.png"
            found[name] = picture(drawing(2 * number + drawer), "PNG")
    return found


def face(number):
    """A face in the middle 148x148 pixels of 178x218 red ones."""
    values = np.zeros((218, 178, 3), np.uint8)
    values[..., 0] = 255
    values[35:183, 15:163] = np.linspace(20, 220, 148)[:, None, None]
    values[35:183, 15:163, 2] = 10 + 20 * number
    return picture(values, "JPEG", quality=100, subsampling=0)


def face_name(number):
    return f"{number + 1:06}.jpg"


def celeba_members():
    return {f"img_align_celeba/{face_name(number)}": face(number) for number in range(len(PARTITION))}


def celeba_partition():
    return "".join(f"{face_name(number)} {part}\n" for number, part in enumerate(PARTITION)).encode()


@cache
def made():
    """Every set's archives, by name."""
    return {
        EMNIST: {GZIP_ZIP: zipped(emnist_members())},
        CIFAR10: {CIFAR_TAR: tarred(cifar_members())},
        SVHN: {file: svhn_file(file) for file in MATS},
        Omniglot: {f"{part}.zip": zipped(omniglot_members(part)) for part in CHARACTERS},
        CelebA: {FACES: zipped(celeba_members()), FACES_PARTITION: celeba_partition()},
    }


# A place that has them


class Site(ThreadingHTTPServer):
    """Serves `files`, or `page` in place of all, or the first half of each; remembers what it was asked for."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {name: content for files in made().values() for name, content in files.items()}
        self.page = None
        self.cut = False
        self.asked = set()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.asked.add(name)
        content = self.server.page or self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if self.server.cut else content)

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """The small archives' checksums in place of the real ones', and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for dataset, files in made().items():
        trust(monkeypatch, dataset, files)


def trust(monkeypatch, dataset, files):
    monkeypatch.setattr(dataset, "sums", {name: md5(content) for name, content in files.items()})


def md5(content):
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def site(monkeypatch):
    """A server that torchvision takes for every one of its own, Google Drive's included."""
    import torchvision.datasets as original

    served = Site()
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(original.EMNIST, "url", f"{served.url}/{GZIP_ZIP}")
    monkeypatch.setattr(original.CIFAR10, "url", f"{served.url}/{CIFAR_TAR}")
    parts = {file.partition("_")[0]: [f"{served.url}/{file}", file, ""] for file in MATS}
    monkeypatch.setattr(original.SVHN, "split_list", parts)
    monkeypatch.setattr(original.Omniglot, "download_url_prefix", served.url)
    identities = {identity: name for identity, _, name in original.CelebA.file_list}

    def drive(identity, root, filename, md5):
        original.utils.download_url(f"{served.url}/{identities[identity]}", root, filename, md5)

    monkeypatch.setattr(original.utils, "download_file_from_google_drive", drive)
    yield served
    served.shutdown()
    served.server_close()


def put(dataset, folder, files=None):
    """Archives where they belong."""
    target = folder / FOLDER[dataset]
    target.mkdir(parents=True, exist_ok=True)
    for name, content in (files or made()[dataset]).items():
        (target / name).write_bytes(content)
    return target


def there(folder):
    """Every file and directory, and what is in it."""
    paths = sorted(folder.rglob("*"))
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def put_whole(dataset, folder):
    """What a directory holds that has a set's archives and nothing else."""
    put(dataset, folder)
    return there(folder)


def broken(load, error=DataError):
    """The message of the error that `load` raises: one line."""
    with pytest.raises(error) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


def pixels(images):
    return images.values if images.rows is None else images.values[images.rows]


# What each set holds


@each_set
def test_each_set_is_bytes_in_its_own_shape_with_whole_numbers_for_labels(tmp_path, dataset):
    put(dataset, tmp_path)
    source = dataset(str(tmp_path)).load()
    assert source.support == "levels256"
    assert (source.validation is None) == (dataset is not CelebA)
    for images, count in zip((source.train, source.test), COUNT[dataset]):
        assert pixels(images).shape == (count, *SHAPE[dataset]) and pixels(images).dtype == np.uint8
        if CLASSES[dataset]:
            assert images.labels.shape == (count,) and images.labels.dtype == np.int64
        else:
            assert images.labels is None


@each_set
@pytest.mark.parametrize("binarize", ["none", "threshold", "dynamic"])
def test_each_set_splits_into_train_validation_and_test(tmp_path, dataset, binarize):
    put(dataset, tmp_path)
    own = dataset is CelebA
    train, test = COUNT[dataset]
    data = dataset(str(tmp_path), binarize=binarize, validation=None if own else 2).splits()
    sizes = (train, 3, test) if own else (train - 2, 2, test)
    assert tuple(map(len, (data.train, data.validation, data.test))) == sizes
    assert data.facts.shape == SHAPE[dataset] and data.facts.classes == CLASSES[dataset]
    assert data.facts.name == dataset.name and data.facts.size == len(data.train)
    assert data.facts.support == ("levels256" if binarize == "none" else "binary")
    assert data.train.select(slice(0, 2)).shape == (2, *SHAPE[dataset])


@each_set
def test_holding_nothing_out_trains_on_every_image_that_is_not_for_the_test(tmp_path, dataset):
    put(dataset, tmp_path)
    data = dataset(str(tmp_path), validation=0).splits()
    assert data.validation is None and len(data.train) == COUNT[dataset][0] + 3 * (dataset is CelebA)


@each_set
def test_holding_out_more_than_there_is_is_a_mistake_in_the_settings(tmp_path, dataset):
    put(dataset, tmp_path)
    assert "dataset.validation=5000" in broken(dataset(str(tmp_path), validation=5000).splits, ConfigError)


@pytest.mark.parametrize("subset", SUBSETS)
def test_emnist_is_turned_upright_and_its_labels_start_at_0(tmp_path, subset):
    put(EMNIST, tmp_path)
    source = EMNIST(str(tmp_path), subset=subset).load()
    for images, part in ((source.train, "train"), (source.test, "test")):
        upright, labels = emnist_part(subset, part)
        assert np.array_equal(images.values[:, 0], upright)
        assert np.array_equal(images.labels, labels.astype(int) - (subset == "letters"))
    assert set(source.train.labels.tolist()) == set(range(emnist_classes(subset)))


def test_a_subset_that_emnist_has_not_is_a_mistake_in_the_settings():
    message = broken(lambda: EMNIST(subset="digit"), ConfigError)
    assert "dataset.subset=digit" in message and all(subset in message for subset in SUBSETS)


def test_cifar_10_is_five_batches_in_order_and_a_test_batch(tmp_path):
    put(CIFAR10, tmp_path)
    source = CIFAR10(str(tmp_path)).load()
    batches = [cifar_batch(number) for number in range(6)]
    assert np.array_equal(source.train.values.reshape(-1, 3072), np.concatenate([data for data, _ in batches[:5]]))
    assert source.train.labels.tolist() == sum((labels for _, labels in batches[:5]), [])
    assert np.array_equal(source.test.values.reshape(-1, 3072), batches[5][0])
    assert source.test.labels.tolist() == batches[5][1]


def test_svhn_has_its_channels_first_and_zeros_labeled_0(tmp_path):
    put(SVHN, tmp_path)
    source = SVHN(str(tmp_path)).load()
    for images, file in zip((source.train, source.test), MATS):
        values, labels = svhn_part(file)
        assert all(
            np.array_equal(images.values[n, c], values[:, :, c, n]) for n in range(len(images)) for c in range(3)
        )
        assert images.labels.tolist() == [*range(1, 10), 0] * (len(labels) // 10)


def test_omniglot_is_bright_on_dark(tmp_path):
    put(Omniglot, tmp_path)
    train = Omniglot(str(tmp_path), image_size=105).load().train
    for values, number in zip(train.values[:, 0], (1, 2, 3, 4, 5, 6)):
        assert np.array_equal(values, np.where(drawing(number), 0, 255))
    small = Omniglot(str(tmp_path)).load().train.values
    assert small.max() > 200 and (small[:, 0, [0, -1]] == 0).all()


def test_omniglots_characters_for_the_test_are_none_of_those_for_training(tmp_path):
    put(Omniglot, tmp_path)
    source = Omniglot(str(tmp_path)).load()
    assert source.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.test.labels.tolist() == [3, 3, 4, 4]


def test_celeba_comes_in_its_own_three_splits(tmp_path):
    put(CelebA, tmp_path)
    source = CelebA(str(tmp_path), image_size=8).load()
    for part, images in enumerate((source.train, source.validation, source.test)):
        numbers = [number for number, own in enumerate(PARTITION) if own == part]
        blue = pixels(images)[:, 2].mean((1, 2))
        assert np.allclose(blue, [10 + 20 * number for number in numbers], atol=3)


def test_celeba_is_the_middle_148_pixels_in_the_size_asked_for(tmp_path):
    put(CelebA, tmp_path)
    whole = CelebA(str(tmp_path), image_size=148).load().train.values
    for number, values in enumerate(whole):
        decoded = np.asarray(Image.open(io.BytesIO(face(number))))
        assert np.array_equal(values.transpose(1, 2, 0), decoded[35:183, 15:163])
    small = CelebA(str(tmp_path), image_size=16).load().train.values
    assert small.shape == (len(PARTITION), 3, 16, 16)
    assert np.abs(small[:, 0, 1:-1].astype(float) - np.linspace(20, 220, 16)[1:-1, None]).max() < 12


def test_another_size_than_celebas_own_validation_set_is_a_mistake_in_the_settings(tmp_path):
    put(CelebA, tmp_path)
    assert "split of their own with 3" in broken(CelebA(str(tmp_path), validation=2).splits, ConfigError)
    assert len(CelebA(str(tmp_path), validation=3).splits().validation) == 3


def test_defaults_are_those_of_the_literature():
    found = {dataset: (dataset().binarize, dataset().validation) for dataset in (*SETS, KMNIST)}
    assert found.pop(Omniglot) == ("dynamic", 1000) and found.pop(CelebA) == ("none", None)
    assert set(found.values()) == {("none", 5000)}
    assert (EMNIST().subset, Omniglot().image_size, CelebA().image_size) == ("balanced", 28, 64)


def test_the_checksums_and_the_subsets_are_those_that_torchvision_knows():
    import torchvision.datasets as original

    assert REAL_SUMS[EMNIST] == {GZIP_ZIP: original.EMNIST.md5}
    assert REAL_SUMS[CIFAR10] == {CIFAR_TAR: original.CIFAR10.tgz_md5}
    assert REAL_SUMS[SVHN] == {file: md5 for _, file, md5 in original.SVHN.split_list.values() if file in MATS}
    assert REAL_SUMS[Omniglot] == {f"{part}.zip": md5 for part, md5 in original.Omniglot.zips_md5.items()}
    files = (FACES, FACES_PARTITION)
    assert REAL_SUMS[CelebA] == {file: md5 for _, md5, file in original.CelebA.file_list if file in files}
    assert set(SUBSETS) == set(original.EMNIST.splits)


# Archives that are there


@each_set
def test_an_archive_that_is_there_is_not_downloaded_again(tmp_path, site, capsys, dataset):
    before = put_whole(dataset, tmp_path / "data")
    dataset(str(tmp_path / "data")).load()
    assert site.asked == set() and there(tmp_path / "data") == before
    out, err = capsys.readouterr()
    assert out == "" and "downloading" not in err


@each_set
def test_an_archive_that_is_there_needs_no_torchvision(tmp_path, monkeypatch, dataset):
    put(dataset, tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert len(dataset(str(tmp_path)).load().train) == COUNT[dataset][0]


DAMAGE = {
    "cut short": lambda content: content[: len(content) // 2],
    "garbled": lambda content: content[:40] + bytes(8) + content[48:],
    "empty": lambda content: b"",
    "an HTML page": lambda content: b"<html>log in</html>",
}


@each_set
@pytest.mark.parametrize("damage", ["cut short", "garbled"])
def test_a_broken_archive_is_said_to_be_and_replaced_alone(tmp_path, site, capsys, dataset, damage):
    data = tmp_path / "data"
    whole = put_whole(dataset, data)
    name, content = next(iter(made()[dataset].items()))
    put(dataset, data, {name: DAMAGE[damage](content)})
    assert len(dataset(str(data)).load().train) == COUNT[dataset][0]
    assert there(data) == whole and site.asked == {name}
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and lines[0].startswith(f"{dataset.name}: {data / FOLDER[dataset] / name} is broken")
    assert lines[1] == f"{dataset.name}: downloading to {data / FOLDER[dataset]} from where torchvision says"


@each_set
def test_a_broken_archive_is_never_opened(tmp_path, site, dataset):
    site.files.clear()
    files = {name: content + b"x" for name, content in made()[dataset].items()}
    put(dataset, tmp_path / "data", files)
    before = there(tmp_path / "data")
    assert "404" in broken(dataset(str(tmp_path / "data")).load)
    assert there(tmp_path / "data") == before


@each_set
def test_a_directory_in_an_archives_place_is_an_error(tmp_path, dataset):
    path = tmp_path / FOLDER[dataset] / next(iter(made()[dataset]))
    path.mkdir(parents=True)
    message = broken(dataset(str(tmp_path)).load)
    assert f"{path} cannot be read (Is a directory)" in message and "data_dir=" in message


def replaced(dataset, change):
    """A set's archives, but one of them otherwise."""
    name, content = next(iter(made()[dataset].items()))
    return {**made()[dataset], name: change(content)}


@each_set
@pytest.mark.parametrize("damage", [damage for damage in DAMAGE if damage != "garbled"])
def test_an_archive_that_cannot_be_read_though_its_checksum_is_right_is_named(tmp_path, monkeypatch, dataset, damage):
    files = replaced(dataset, DAMAGE[damage])
    trust(monkeypatch, dataset, files)
    target = put(dataset, tmp_path, files)
    message = broken(dataset(str(tmp_path)).load)
    assert str(target / next(iter(files))) in message and "delete it to have it fetched again" in message


@pytest.mark.parametrize(
    ("dataset", "members"),
    [(EMNIST, emnist_members), (CIFAR10, cifar_members)],
    ids=["emnist", "cifar10"],
)
def test_an_archive_that_lacks_a_part_is_named(tmp_path, monkeypatch, dataset, members):
    kept = {name: content for name, content in members().items() if "balanced-test" not in name and "_4" not in name}
    name = next(iter(made()[dataset]))
    files = {name: (zipped if dataset is EMNIST else tarred)(kept)}
    trust(monkeypatch, dataset, files)
    target = put(dataset, tmp_path, files)
    assert f"{target / name} cannot be read" in broken(dataset(str(tmp_path)).load)


def test_a_picture_that_is_missing_from_celebas_archive_is_named(tmp_path, monkeypatch):
    members = celeba_members()
    del members["img_align_celeba/000004.jpg"]
    files = {**made()[CelebA], FACES: zipped(members)}
    trust(monkeypatch, CelebA, files)
    put(CelebA, tmp_path, files)
    assert "img_align_celeba.zip: 000004.jpg cannot be read" in broken(CelebA(str(tmp_path)).load)


# EMNIST's unpacked files


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_emnists_files_are_used_as_torchvision_leaves_them(tmp_path, site, monkeypatch):
    from torchvision.datasets import EMNIST as Original  # noqa: N811

    monkeypatch.setattr(Original, "md5", EMNIST.sums[GZIP_ZIP])
    theirs = Original(str(tmp_path / "data"), split="letters", download=True)
    (tmp_path / "data" / FOLDER[EMNIST] / GZIP_ZIP).unlink()
    site.asked.clear()
    train = EMNIST(str(tmp_path / "data"), subset="letters").load().train
    assert np.array_equal(train.values[:, 0].transpose(0, 2, 1), theirs.data.numpy())
    assert np.array_equal(train.labels, theirs.targets.numpy() - 1)
    assert site.asked == set()


def test_one_subset_unpacked_does_not_stand_for_another(tmp_path, site):
    digits = {name: content for name, content in emnist_files().items() if "digits" in name}
    write(tmp_path / "data" / FOLDER[EMNIST], digits)
    EMNIST(str(tmp_path / "data"), subset="digits").load()
    assert site.asked == set()
    EMNIST(str(tmp_path / "data"), subset="mnist").load()
    assert site.asked == {GZIP_ZIP}


def test_half_of_an_unpacked_subset_is_left_for_the_archive(tmp_path):
    put(EMNIST, tmp_path)
    write(tmp_path / FOLDER[EMNIST], {"emnist-balanced-train-images-idx3-ubyte": b"a stopped unpacking"})
    assert np.array_equal(EMNIST(str(tmp_path)).load().train.values[:, 0], emnist_part("balanced", "train")[0])


def test_a_broken_unpacked_file_is_named(tmp_path):
    name = "emnist-balanced-train-images-idx3-ubyte"
    write(tmp_path / FOLDER[EMNIST], emnist_files() | {name: emnist_files()[name][:-1]})
    message = broken(EMNIST(str(tmp_path)).load)
    assert str(tmp_path / FOLDER[EMNIST] / name) in message and "delete it" in message


def test_unpacked_images_with_too_few_labels_are_refused(tmp_path):
    name = "emnist-balanced-test-labels-idx1-ubyte"
    write(tmp_path / FOLDER[EMNIST], emnist_files() | {name: idx.encode(np.zeros(3, np.uint8))})
    message = broken(EMNIST(str(tmp_path)).load)
    assert "27x28x28 values and 3 labels" in message and str(tmp_path / FOLDER[EMNIST]) in message


# Downloads


@each_set
def test_archives_that_are_missing_are_downloaded_where_they_belong(tmp_path, site, capsys, dataset):
    assert len(dataset(str(tmp_path / "data")).load().train) == COUNT[dataset][0]
    assert there(tmp_path / "data") == put_whole(dataset, tmp_path / "wanted")
    assert site.asked == set(made()[dataset])
    out, err = capsys.readouterr()
    assert out == "" and f"{dataset.name}: downloading to {tmp_path / 'data' / FOLDER[dataset]}" in err
    assert "broken" not in err and "100%" in err
    assert socket.getdefaulttimeout() is None


def test_without_a_data_dir_archives_go_into_the_cache(tmp_path, site):
    CIFAR10().load()
    assert (tmp_path / "cache" / "vae_cli" / CIFAR_TAR).read_bytes() == made()[CIFAR10][CIFAR_TAR]


@pytest.mark.parametrize("dataset", [SVHN, Omniglot, CelebA], ids=lambda dataset: dataset.name)
def test_only_what_is_missing_is_downloaded(tmp_path, site, dataset):
    first, second = made()[dataset].items()
    put(dataset, tmp_path / "data", dict([first]))
    dataset(str(tmp_path / "data")).load()
    assert site.asked == {second[0]}


REFUSALS = {
    "cut short": ("corrupted", "IncompleteRead"),
    "an HTML page": ("corrupted",),
    "not found": ("HTTP Error 404",),
}


def spoil(site, damage):
    site.cut = damage == "cut short"
    if damage == "an HTML page":
        site.page = b"<html>log in</html>"
    if damage == "not found":
        site.files.clear()


@each_set
@pytest.mark.parametrize("damage", REFUSALS)
def test_a_bad_download_is_refused_in_one_line_and_leaves_nothing(tmp_path, site, dataset, damage):
    spoil(site, damage)
    message = broken(dataset(str(tmp_path / "data")).load)
    assert there(tmp_path / "data") == {}
    assert message.startswith(f"{dataset.name} is not in {tmp_path / 'data' / FOLDER[dataset]}, and downloading it")
    assert ("Google Drive: " if dataset is CelebA else f"127.0.0.1:{site.server_port}: ") in message
    assert any(why in message for why in REFUSALS[damage])
    assert all(f"{name} (MD5 {md5(content)})" in message for name, content in made()[dataset].items())
    assert f"into {tmp_path / 'data' / FOLDER[dataset]} by hand" in message and "data_dir=" in message


def test_a_bad_second_download_leaves_nothing_of_the_first(tmp_path, site):
    site.files[MATS[1]] = b"<html>log in</html>"
    broken(SVHN(str(tmp_path / "data")).load)
    assert there(tmp_path / "data") == {} and site.asked == set(MATS)


def test_a_server_that_refuses_the_connection_is_named(tmp_path, monkeypatch, site):
    import torchvision.datasets

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "http://127.0.0.1:1/x.tar.gz")
    assert "(127.0.0.1:1: Connection refused)" in broken(CIFAR10(str(tmp_path / "data")).load)
    assert there(tmp_path / "data") == {}


def test_a_server_that_never_answers_times_out(tmp_path, monkeypatch, site):
    import torchvision.datasets

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(torchvision.datasets.EMNIST, "url", f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip")
        monkeypatch.setattr(mirrors, "TIMEOUT", 0.1)
        start = time.monotonic()
        assert "timed out" in broken(EMNIST(str(tmp_path / "data")).load)
    assert time.monotonic() - start < 5 and socket.getdefaulttimeout() is None
    assert there(tmp_path / "data") == {}


def test_celeba_without_gdown_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    message = broken(CelebA(str(tmp_path / "data")).load)
    assert "Google Drive: " in message and "pip install gdown" in message
    assert there(tmp_path / "data") == {}


def test_without_torchvision_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    assert "torchvision cannot be imported" in broken(SVHN(str(tmp_path / "data")).load)
    assert there(tmp_path / "data") == {}


def failing(monkeypatch, error):
    """A download that writes some bytes, then fails."""
    import torchvision.datasets

    def download(url, root, filename, md5):
        (Path(root) / filename).write_bytes(b"some")
        raise error

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)


def test_a_full_disk_is_not_blamed_on_the_server(tmp_path, monkeypatch, site):
    failing(monkeypatch, OSError(errno.ENOSPC, "No space left on device"))
    message = broken(EMNIST(str(tmp_path / "data")).load)
    assert f"data_dir={tmp_path / 'data'} cannot be written (No space left on device)" in message
    assert there(tmp_path / "data") == {}


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch, site):
    failing(monkeypatch, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        CIFAR10(str(tmp_path / "data")).load()
    assert there(tmp_path / "data") == {}


@each_set
def test_a_data_dir_that_cannot_be_written_is_named(tmp_path, site, dataset):
    (tmp_path / "data").touch()
    message = broken(dataset(str(tmp_path / "data")).load)
    assert f"data_dir={tmp_path / 'data'} cannot be written" in message and site.asked == set()


def test_the_route_gives_files_that_have_their_checksums(tmp_path, site):
    sums = {name: md5(content) for name, content in made()[SVHN].items()}
    route = archives("SVHN", lambda original, file: original.split_list[file.partition("_")[0]][0], sums)
    found = route.get(tmp_path)
    assert {name: path.read_bytes() for name, path in found.items()} == made()[SVHN]


# What killed downloads leave


def left_behind(data, age):
    """A directory that a download left so many days ago."""
    staging = data / ".fetching-abc"
    write(staging / "EMNIST", {"gzip.zip": b"half of it"})
    then = time.time() - age * DAY
    os.utime(staging, (then, then))
    return staging


@pytest.mark.parametrize(("age", "stays"), [(3, False), (1, True), (0, True)])
def test_the_next_download_clears_away_what_is_days_old_and_nothing_newer(tmp_path, site, age, stays):
    staging = left_behind(tmp_path / "data", age)
    CIFAR10(str(tmp_path / "data")).load()
    assert staging.exists() == stays
    if stays:
        assert (staging / "EMNIST" / "gzip.zip").read_bytes() == b"half of it"


def test_a_failed_download_clears_away_what_is_days_old_too(tmp_path, site):
    site.files.clear()
    left_behind(tmp_path / "data", 3)
    broken(CIFAR10(str(tmp_path / "data")).load)
    assert there(tmp_path / "data") == {}


def test_clearing_away_follows_no_link_out_of_the_directory(tmp_path, site):
    write(tmp_path / "mine", {"thesis.tex": b"years"})
    (tmp_path / "data").mkdir()
    link = tmp_path / "data" / ".fetching-abc"
    link.symlink_to(tmp_path / "mine")
    then = time.time() - 3 * DAY
    os.utime(tmp_path / "mine", (then, then))
    CIFAR10(str(tmp_path / "data")).load()
    assert (tmp_path / "mine" / "thesis.tex").exists()


def test_nothing_is_cleared_away_without_a_download(tmp_path, site):
    put(CIFAR10, tmp_path / "data")
    staging = left_behind(tmp_path / "data", 3)
    CIFAR10(str(tmp_path / "data")).load()
    assert staging.exists()


# Archives with something else in mind


class Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def malicious(kind, trap):
    """A pickle that makes a file if it is let."""
    command = f"touch {trap}"
    if kind == "protocol 4":
        return pickle.dumps(Payload(command), protocol=4)
    asked = {"os": b"cos\nsystem\n", "posix": b"cposix\nsystem\n", "numpy": b"cnumpy.testing\nrundocs\n"}[kind]
    call = asked + b"X" + struct.pack("<I", len(command)) + command.encode() + b"\x85R"
    return python2_pickle({"labels": [0], "data": call})


@pytest.mark.parametrize("kind", ["os", "posix", "numpy", "protocol 4"])
@pytest.mark.parametrize("batch", ["data_batch_1", "test_batch"])
def test_a_pickle_that_asks_for_a_shell_runs_nothing(tmp_path, monkeypatch, kind, batch):
    trap = tmp_path / "trap"
    members = cifar_members() | {f"cifar-10-batches-py/{batch}": malicious(kind, trap)}
    files = {CIFAR_TAR: tarred(members)}
    trust(monkeypatch, CIFAR10, files)
    put(CIFAR10, tmp_path / "data", files)
    message = broken(CIFAR10(str(tmp_path / "data")).load)
    assert "its pickle asks for " in message and str(tmp_path / "data" / CIFAR_TAR) in message
    assert not trap.exists()


def test_a_pickle_that_is_no_batch_is_not_opened(tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    members = cifar_members() | {"cifar-10-batches-py/batches.meta": malicious("os", trap)}
    files = {CIFAR_TAR: tarred(members)}
    trust(monkeypatch, CIFAR10, files)
    put(CIFAR10, tmp_path / "data", files)
    assert len(CIFAR10(str(tmp_path / "data")).load().train) == 20
    assert not trap.exists()


MEMBERS = {
    EMNIST: (GZIP_ZIP, emnist_members, zipped),
    CIFAR10: (CIFAR_TAR, cifar_members, tarred),
    Omniglot: ("images_background.zip", lambda: omniglot_members("images_background"), zipped),
    CelebA: (FACES, celeba_members, zipped),
}


@pytest.mark.parametrize("dataset", MEMBERS, ids=lambda dataset: dataset.name)
def test_members_that_climb_out_are_written_nowhere(tmp_path, monkeypatch, dataset):
    name, members, packed = MEMBERS[dataset]
    ways = ("..", "../..", "../../..", str(tmp_path), "img_align_celeba/../..")
    evil = {f"{way}/evil{suffix}": picture(drawing(0), "PNG") for way in ways for suffix in ("", ".png", ".gz")}
    files = {**made()[dataset], name: packed(members() | evil)}
    trust(monkeypatch, dataset, files)
    data = tmp_path / "deep" / "down" / "data"
    put(dataset, data, files)
    before = there(tmp_path)
    dataset(str(data)).load()
    after = {path: content for path, content in there(tmp_path).items() if path.partition("/")[0] != "cache"}
    assert after == before and not list(tmp_path.rglob("*evil*"))


def test_a_link_in_the_tar_file_is_not_followed_out_of_it(tmp_path, monkeypatch):
    members, first = cifar_members(), "cifar-10-batches-py/data_batch_1"
    write(tmp_path, {"secret": members.pop(first)})
    files = {CIFAR_TAR: tarred(members, {first: str(tmp_path / "secret")})}
    trust(monkeypatch, CIFAR10, files)
    put(CIFAR10, tmp_path / "data", files)
    assert "cannot be read" in broken(CIFAR10(str(tmp_path / "data")).load)


# Decoded once


def undecodable(monkeypatch):
    def square(*args, **options):
        raise AssertionError("a picture is decoded")

    for module in (omniglot_module, celeba):
        monkeypatch.setattr(module, "square", square)


@each_decoded_set
def test_a_second_start_maps_what_the_first_has_decoded(tmp_path, monkeypatch, capsys, dataset):
    put(dataset, tmp_path / "data")
    first = dataset(str(tmp_path / "data")).load()
    assert ".zip: decoding" in capsys.readouterr().err
    undecodable(monkeypatch)
    second = dataset(str(tmp_path / "data")).load()
    assert isinstance(second.train.values, np.memmap) and isinstance(second.test.values, np.memmap)
    assert np.array_equal(pixels(first.train), pixels(second.train))
    assert np.array_equal(pixels(first.test), pixels(second.test))
    assert capsys.readouterr() == ("", "")


@each_decoded_set
def test_what_is_decoded_goes_into_the_cache_and_not_beside_the_archives(tmp_path, dataset):
    before = put_whole(dataset, tmp_path / "data")
    dataset(str(tmp_path / "data")).load()
    assert there(tmp_path / "data") == before
    assert any(path.name.startswith(dataset.name) for path in (tmp_path / "cache" / "vae_cli" / "decoded").iterdir())


@each_decoded_set
def test_another_size_is_decoded_beside_the_first(tmp_path, monkeypatch, dataset):
    put(dataset, tmp_path)
    sizes = (12, 20)
    for size in sizes:
        assert dataset(str(tmp_path), image_size=size).load().train.values.shape[-2:] == (size, size)
    undecodable(monkeypatch)
    for size in sizes:
        assert dataset(str(tmp_path), image_size=size).load().train.values.shape[-2:] == (size, size)


@each_decoded_set
def test_decoded_files_that_are_cut_short_are_made_anew(tmp_path, dataset):
    put(dataset, tmp_path / "data")
    wanted = np.array(dataset(str(tmp_path / "data")).load().train.values)
    for path in (tmp_path / "cache").rglob("*.bytes"):
        path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(dataset(str(tmp_path / "data")).load().train.values, wanted)


def test_another_archive_is_decoded_anew(tmp_path, monkeypatch):
    put(Omniglot, tmp_path)
    before = np.array(Omniglot(str(tmp_path)).load().train.values)
    members = omniglot_members("images_background")
    members["images_background/Greek/character01/0001_01.png"] = picture(drawing(15), "PNG")
    files = {**made()[Omniglot], "images_background.zip": zipped(members)}
    trust(monkeypatch, Omniglot, files)
    put(Omniglot, tmp_path, files)
    changed = (Omniglot(str(tmp_path)).load().train.values != before).any((1, 2, 3))
    assert changed.tolist() == [True] + [False] * 5


@each_decoded_set
def test_a_cache_that_cannot_be_written_is_named(tmp_path, dataset):
    put(dataset, tmp_path / "data")
    (tmp_path / "cache").touch()
    message = broken(dataset(str(tmp_path / "data")).load)
    assert str(tmp_path / "cache" / "vae_cli") in message and "XDG_CACHE_HOME=" in message


# KMNIST


@pytest.fixture
def kmnist(site, monkeypatch):
    """KMNIST's four files on the site; their arrays."""
    import torchvision.datasets

    shapes = ((30, 28, 28), (30,), (10, 28, 28), (10,))
    arrays = {name: noise(*shape) // (26 if len(shape) == 1 else 1) for name, shape in zip(mnist.FILES, shapes)}
    packed = {f"{name}.gz": gzip.compress(idx.encode(values), 1) for name, values in arrays.items()}
    site.files |= packed
    sums = [(name, md5(content)) for name, content in packed.items()]
    monkeypatch.setattr(torchvision.datasets.KMNIST, "resources", sums)
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", [f"{site.url}/"])
    return arrays


def test_kmnist_comes_from_torchvisions_mirror_and_stays(tmp_path, site, kmnist):
    for _ in range(2):
        source = KMNIST(str(tmp_path / "data")).load()
        assert np.array_equal(source.train.values[:, 0], kmnist[mnist.FILES[0]])
        assert np.array_equal(source.train.labels, kmnist[mnist.FILES[1]])
        assert np.array_equal(source.test.values[:, 0], kmnist[mnist.FILES[2]])
        assert np.array_equal(source.test.labels, kmnist[mnist.FILES[3]])
        assert source.support == "levels256" and source.validation is None
        site.files.clear()
    raw = tmp_path / "data" / "KMNIST" / "raw"
    assert sorted(path.name for path in raw.iterdir()) == sorted(mnist.FILES)


def test_kmnist_splits_into_train_validation_and_test(tmp_path, kmnist):
    data = KMNIST(str(tmp_path / "data"), validation=4).splits()
    assert (len(data.train), len(data.validation), len(data.test)) == (26, 4, 10)
    assert data.facts.name == "kmnist" and data.facts.shape == (1, 28, 28) and data.facts.support == "levels256"


@pytest.mark.parametrize("damage", REFUSALS)
def test_a_bad_download_of_kmnist_is_refused_in_one_line_and_leaves_nothing(tmp_path, site, kmnist, damage):
    spoil(site, damage)
    message = broken(KMNIST(str(tmp_path / "data")).load)
    raw = tmp_path / "data" / "KMNIST" / "raw"
    assert there(tmp_path / "data") == {}
    assert message.startswith(f"kmnist is not in {raw}, and downloading it failed from torchvision's mirrors")
    assert f"127.0.0.1:{site.server_port}: " in message and any(why in message for why in REFUSALS[damage])
    assert f"put {raw / mnist.FILES[0]}" in message and "by hand" in message and "registry" not in message
