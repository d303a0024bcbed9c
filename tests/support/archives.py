"""Archives like those of the published data sets, but small, and taken for them."""

import gzip
import io
import tarfile
import zipfile
from functools import cache

import numpy as np
from PIL import Image

from tests.support.files import md5, write
from vae_cli.data import CIFAR10, EMNIST, SVHN, Caltech101Silhouettes, CelebA, Omniglot, OmniglotBurda
from vae_cli.data.download import RemoteFile
from vae_cli.data.sets import idx

SETS = (EMNIST, CIFAR10, SVHN, Omniglot, CelebA, OmniglotBurda, Caltech101Silhouettes)
DECODED = (Omniglot, CelebA)
SMALL = dict.fromkeys((EMNIST, Omniglot, OmniglotBurda, Caltech101Silhouettes), (1, 28, 28))
SHAPE = {**SMALL, CIFAR10: (3, 32, 32), SVHN: (3, 32, 32), CelebA: (3, 64, 64)}
SUPPORT = {**dict.fromkeys(SETS, "levels256"), OmniglotBurda: "unit", Caltech101Silhouettes: "binary"}
COUNT = {EMNIST: (62, 27), CIFAR10: (20, 4), SVHN: (20, 10), Omniglot: (6, 4), CelebA: (5, 2)}
COUNT |= {OmniglotBurda: (9, 5), Caltech101Silhouettes: (7, 4)}
OWN = {CelebA: 3, Caltech101Silhouettes: 3}  # images of a validation split of their own
CLASSES = {EMNIST: 47, CIFAR10: 10, SVHN: 10, Omniglot: 5, CelebA: 0, OmniglotBurda: 50, Caltech101Silhouettes: 3}
SUBSETS = ("balanced", "byclass", "bymerge", "letters", "digits", "mnist")
PARTITION = (0, 2, 0, 1, 0, 1, 2, 0, 1, 0)  # of CelebA
MATS = ("train_32x32.mat", "test_32x32.mat")
BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
CHARACTERS = {
    "images_background": ("Greek/character01", "Greek/character02", "Latin/character01"),
    "images_evaluation": ("Atlantean/character01", "Oriya/character01"),
}


def trust(monkeypatch, dataset, files, server=None):
    """Let files pass for the published ones, on a server or nowhere."""
    address = server.address if server else "http://127.0.0.1:1/{}".format
    remote = tuple(RemoteFile(name, md5(content), (address(name),)) for name, content in files.items())
    monkeypatch.setattr(dataset, "files", remote)


def put(dataset, data_dir, files=None):
    """Write archives to their place; return its directory."""
    return write(data_dir / dataset.subfolder, files or made()[dataset])


def stored(images):
    """The images' own values."""
    return images.values if images.rows is None else images.values[images.rows]


def noise(*shape):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, dtype=np.uint8)


def zipped(members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members, links=None):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
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
    labels = np.arange(count) % emnist_classes(subset) + (subset == "letters")
    return noise(count, 28, 28), labels.astype(np.uint8)


@cache
def emnist_files():
    """The unpacked files, by name."""
    files = {}
    for subset in SUBSETS:
        for part in ("train", "test"):
            images, labels = emnist_part(subset, part)
            stem = f"emnist-{subset}-{part}"
            files[f"{stem}-images-idx3-ubyte"] = idx.encode(np.ascontiguousarray(images.transpose(0, 2, 1)))
            files[f"{stem}-labels-idx1-ubyte"] = idx.encode(labels)
    return files


def emnist_members():
    return {f"gzip/{name}.gz": gzip.compress(content, 1) for name, content in emnist_files().items()}


def cifar_batch(number):
    """One of six batches, the last for the test."""
    return np.roll(noise(4, 3072), number), [(4 * number + k) % 10 for k in range(4)]


def cifar_members():
    members = {"cifar-10-batches-bin/batches.meta.txt": b"airplane\ntruck\n"}
    for number, name in enumerate(BATCHES):
        data, labels = cifar_batch(number)
        records = np.concatenate([np.array(labels, np.uint8)[:, None], data], axis=1)
        members[f"cifar-10-batches-bin/{name}.bin"] = records.tobytes()
    return members


def mat(**arrays):
    """A MATLAB file."""
    from scipy.io import savemat

    buffer = io.BytesIO()
    savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


def svhn_part(file):
    """Images (32, 32, 3, N) and labels from 1 to 10, as in the files."""
    count = COUNT[SVHN][file.startswith("test")]
    return noise(32, 32, 3, count), (np.arange(count, dtype=np.uint8) % 10 + 1)[:, None]


def _svhn_file(file):
    images, labels = svhn_part(file)
    return mat(X=images, y=labels)


def drawing(number):
    """A character, black on white: True where it is white."""
    values = np.ones((105, 105), bool)
    values[20 + number : 60, 30:35] = False
    values[60:64, 30 : 80 - number] = False
    return values


def omniglot_members(part):
    members = {f"{part}/": b"", f"__MACOSX/{part}/Greek/character01/._0001_01.png": b"no picture"}
    for number, character in enumerate(CHARACTERS[part]):
        for drawer in (1, 2):
            name = f"{part}/{character}/{number + 1:04}_{drawer:02}.png"
            members[name] = picture(drawing(2 * number + drawer), "PNG")
    return members


def chardata_part(part):
    """Upright images in [0, 1], and the alphabets that they are of."""
    count = COUNT[OmniglotBurda][part == "test"]
    return noise(count, 28, 28) / 255, np.arange(count)[::-1] + 50 - count


def chardata():
    """The arrays of the file: a column for each image, in which its own columns follow each other."""
    arrays = {}
    for prefix in ("", "test"):
        images, alphabets = chardata_part(prefix or "train")
        arrays[f"{prefix}data"] = np.stack([image.flatten(order="F") for image in images], axis=1)
        arrays[f"{prefix}target"] = np.eye(50)[:, alphabets]
        arrays[f"{prefix}targetchar"] = np.ones((1, len(images)))
    return arrays


def silhouettes_part(part):
    """Upright white figures on black, and labels from 1 on."""
    count = {"train": COUNT[Caltech101Silhouettes][0], "val": 3, "test": COUNT[Caltech101Silhouettes][1]}[part]
    return noise(count, 28, 28) % 2, np.arange(count) % 3 + 1


def silhouettes():
    """The arrays of the file: a row for each image, black on white, column by column."""
    arrays = {"classnames": np.array([["anchor", "ant", "Faces easy"]], object)}
    for part in ("train", "val", "test"):
        images, labels = silhouettes_part(part)
        arrays[f"{part}_data"] = np.stack([1 - image.flatten(order="F") for image in images])
        arrays[f"{part}_labels"] = labels[:, None]
    return arrays


def face(number):
    """A face in the middle 148x148 pixels of 178x218 red ones."""
    values = np.zeros((218, 178, 3), np.uint8)
    values[..., 0] = 255
    values[35:183, 15:163] = np.linspace(20, 220, 148)[:, None, None]
    values[35:183, 15:163, 2] = 10 + 20 * number
    return picture(values, "JPEG", quality=100, subsampling=0)


def celeba_members():
    return {f"img_align_celeba/{number + 1:06}.jpg": face(number) for number in range(len(PARTITION))}


# Of the sets whose archives have members: the archive, the members, and how they are packed.
MEMBERS = {
    EMNIST: ("gzip.zip", emnist_members, zipped),
    CIFAR10: ("cifar-10-binary.tar.gz", cifar_members, tarred),
    Omniglot: ("images_background.zip", lambda: omniglot_members("images_background"), zipped),
    CelebA: ("img_align_celeba.zip", celeba_members, zipped),
}


@cache
def made():
    """Every set's archives, by name."""
    partition = "".join(f"{number + 1:06}.jpg {part}\n" for number, part in enumerate(PARTITION))
    return {
        EMNIST: {"gzip.zip": zipped(emnist_members())},
        CIFAR10: {"cifar-10-binary.tar.gz": tarred(cifar_members())},
        SVHN: {file: _svhn_file(file) for file in MATS},
        Omniglot: {f"{part}.zip": zipped(omniglot_members(part)) for part in CHARACTERS},
        CelebA: {"img_align_celeba.zip": zipped(celeba_members()), "list_eval_partition.txt": partition.encode()},
        OmniglotBurda: {"chardata.mat": mat(**chardata())},
        Caltech101Silhouettes: {"caltech101_silhouettes_28_split1.mat": mat(**silhouettes())},
    }
