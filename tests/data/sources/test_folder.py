"""Directories of images as people have them, and sets that stay on the disk."""

import json
import os
import shutil
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli.data import Arrays, Folder, Split, batches
from vae_cli.data.batches import Batches, pixels
from vae_cli.data.images import Images
from vae_cli.data.sources import decoded, pictures
from vae_cli.errors import ConfigError, DataError

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def picture(width=20, height=20, value=(200, 30, 60)):
    return Image.new("RGB", (width, height), value)


def noise(width=32, height=32):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def put(root, *names, image=None):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image or picture()).save(path)


def load(root, size=16, **options):
    return Folder(str(root), image_size=size, **options).load()


def one(root, name, image, size=16, channels=3, **saved):
    """What a single picture turns into, (C, size, size)."""
    path = root / name
    image.save(path, **saved)
    with path.open("rb") as file:
        return pictures.square(file, size, channels)


def refused(root, **options):
    with pytest.raises(DataError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)
    return str(caught.value)


# One picture


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.gif", "a.jpg"])
def test_a_picture_of_every_format_gives_its_color(tmp_path, name):
    saved = {"lossless": True} if name.endswith("webp") else {}
    found = one(tmp_path, name, picture(), **saved)
    assert found.shape == (3, 16, 16) and found.dtype == np.uint8
    np.testing.assert_allclose(found.mean((1, 2)), (200, 30, 60), atol=2)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "PA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_white_picture_of_every_mode_is_white(tmp_path, mode, channels):
    image = Image.new("RGB", (20, 20), "white")
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 20), 65535, np.uint16))
    elif mode == "PA":
        image = Image.new("RGBA", (20, 20), "white").quantize(4)
    else:
        image = image.convert(mode)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    assert one(tmp_path, name, image, channels=channels).shape == (channels, 16, 16)
    assert (one(tmp_path, name, image, channels=channels) >= 254).all()


def test_sixteen_bits_are_brought_to_eight(tmp_path):
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    found = one(tmp_path, "a.png", Image.fromarray(levels), channels=1)
    assert np.array_equal(found[0], np.arange(256).reshape(16, 16))


def test_what_is_transparent_is_put_over_white(tmp_path):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert (one(tmp_path, "a.png", clear) == 255).all()
    assert abs(int(one(tmp_path, "b.png", half)[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    assert (one(tmp_path, "c.gif", palette, transparency=0) == 255).all()
    assert (one(tmp_path, "d.png", picture(16, 16), transparency=(200, 30, 60)) == 255).all()


def test_a_square_of_the_right_size_is_left_as_it_is(tmp_path):
    image = noise(16, 16)
    assert np.array_equal(one(tmp_path, "a.png", image), np.asarray(image).transpose(2, 0, 1))


def test_the_middle_is_kept_and_resized_like_pillow_does(tmp_path):
    image = noise(50, 30)
    expected = image.crop((10, 0, 40, 30)).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(one(tmp_path, "a.png", image), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2)])
def test_the_smallest_and_the_longest_picture_become_squares(tmp_path, size):
    np.testing.assert_allclose(one(tmp_path, "a.png", picture(*size)).mean((1, 2)), (200, 30, 60), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright_as_pillow_does(tmp_path, orientation):
    from PIL import ImageOps

    image, exif = noise(30, 22), Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    found = one(tmp_path, "a.png", image, exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        upright = ImageOps.exif_transpose(opened)
    (tmp_path / "b").mkdir()
    assert np.array_equal(found, one(tmp_path / "b", "a.png", Image.fromarray(np.asarray(upright))))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_cost_the_picture(tmp_path):
    assert one(tmp_path, "a.jpg", picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff").shape == (3, 16, 16)


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(tmp_path):
    smooth = Image.fromarray(RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8)).resize((1200, 800), Image.BICUBIC)
    exact = one(tmp_path, "a.png", smooth)
    drafted = one(tmp_path, "a.jpg", smooth, quality=95)
    assert np.abs(exact.astype(int) - drafted).mean() < 3


def test_the_first_frame_of_a_moving_picture_counts(tmp_path):
    frames = [picture(value=(250, 0, 0)), picture(value=(0, 250, 0))]
    for name in ("a.gif", "a.webp", "a.png"):
        found = one(tmp_path, name, frames[0], save_all=True, append_images=frames[1:])
        assert found[0].mean() > 200 > 60 > found[1].mean()


# A tree of them


def test_files_are_found_at_any_depth_in_the_order_of_their_names(tmp_path):
    for number, name in enumerate(["b.png", "a/z.PNG", "a/b/c/d.jpeg", "é 名前 x=1,[y]'.png"]):
        put(tmp_path / "x", name, image=picture(value=(number, number, number)))
    assert sorted(load(tmp_path / "x").train.values[:, 0, 0, 0].tolist()) == [0, 1, 2, 3]
    assert load(tmp_path / "x").train.values[:, 0, 0, 0].tolist() == [2, 1, 0, 3]


def test_what_is_hidden_or_no_image_is_left_alone(tmp_path):
    root = tmp_path / "x"
    put(root, "a.png", ".hidden.png", ".git/b.png", "._a.png", "__MACOSX/c.png", "@eaDir/a.png/thumb.jpg")
    (root / "notes.txt").write_text("hello")
    (root / "Thumbs.db").write_bytes(b"x")
    source = load(root)
    assert len(source.train) == 1
    assert any("2 file(s) that are no images" in note and ".txt" in note for note in source.notes)


def test_subfolders_name_the_classes(tmp_path):
    root = tmp_path / "x"
    put(root, "dog/1.png", "cat/1.png", "cat/deep/2.png")
    (root / "empty").mkdir()
    source = load(root)
    assert source.train.labels.tolist() == [0, 0, 1] and source.train.labels.dtype == np.int64
    assert any("2 class(es) by folder: cat, dog" in note for note in source.notes)


def test_images_beside_class_folders_make_a_set_without_labels_and_say_so(tmp_path):
    put(tmp_path / "x", "dog/1.png", "cat/1.png", "stray.png")
    source = load(tmp_path / "x")
    assert source.train.labels is None and len(source.train) == 3
    assert any("no labels: 1 image(s)" in note for note in source.notes)


def test_thousands_of_class_folders(tmp_path):
    root = tmp_path / "x"
    put(root, "0000/a.png")
    for number in range(1, 2500):
        (root / f"{number:04d}").mkdir()
        os.link(root / "0000/a.png", root / f"{number:04d}" / "a.png")
    data = Folder(str(root), image_size=4).splits()
    assert data.facts.classes == 2500 and len(data.train) + len(data.validation) + len(data.test) == 2500


@pytest.mark.parametrize(
    "names", [("train", "val", "test"), ("Train", "valid", "TEST"), ("training", "validation", "test")]
)
def test_split_folders_are_the_splits_and_hold_the_classes(tmp_path, names):
    train, validation, test = names
    put(tmp_path / "x", f"{train}/a/1.png", f"{train}/b/1.png", f"{validation}/b/1.png", f"{test}/a/1.png", "cover.png")
    source = load(tmp_path / "x")
    assert [len(part) for part in (source.train, source.validation, source.test)] == [2, 1, 1]
    assert [part.labels.tolist() for part in (source.train, source.validation, source.test)] == [[0, 1], [1], [0]]
    assert any("left out 1 image(s) outside" in note for note in source.notes)


def test_train_alone_is_a_split_and_among_others_a_class(tmp_path):
    put(tmp_path / "x", "train/1.png", "train/2.png")
    assert load(tmp_path / "x").train.labels is None
    put(tmp_path / "y", "train/1.png", "plane/1.png")
    assert load(tmp_path / "y").train.labels.tolist() == [0, 1]


def test_two_folders_for_one_split_are_refused(tmp_path):
    put(tmp_path / "x", "train/1.png", "val/1.png", "valid/1.png")
    with pytest.raises(DataError, match="val and valid, which mean the same"):
        load(tmp_path / "x")


def test_validation_0_trains_on_the_val_folder_too(tmp_path):
    put(tmp_path / "x", "train/1.png", "val/1.png", "test/1.png")
    data = Folder(str(tmp_path / "x"), image_size=4, validation=0).splits()
    assert data.validation is None and len(data.train) == 2 and data.train.mapped


def test_the_seeded_split_is_the_same_every_time_and_covers_every_image(tmp_path):
    for number in range(40):
        put(tmp_path / "x", f"{number:02d}.png", image=picture(value=(number, 0, 0)))

    def parts():
        data = Folder(str(tmp_path / "x"), image_size=4).splits()
        found = [pixels(part, slice(None), CPU)[:, 0, 0, 0] for part in (data.train, data.validation, data.test)]
        return [part.mul(255).round().int().tolist() for part in found]

    assert parts() == parts() and sorted(sum(parts(), [])) == list(range(40)) and list(map(len, parts())) == [32, 4, 4]


def test_one_image_alone_is_trained_on_and_said_to_be_the_test_too(tmp_path):
    put(tmp_path / "x", "a.png")
    data = Folder(str(tmp_path / "x"), image_size=4).splits()
    assert len(data.train) == len(data.test) == 1 and data.validation is None
    assert any("one image alone" in note for note in data.notes)


def test_links_are_followed_but_never_in_a_circle(tmp_path):
    put(tmp_path / "elsewhere", "b.png", "c.png")
    put(tmp_path / "x", "a.png")
    (tmp_path / "x" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "x" / "a2.png").symlink_to("a.png")
    (tmp_path / "x" / "round").symlink_to(tmp_path / "x")
    (tmp_path / "x" / "self").symlink_to("self")
    assert len(load(tmp_path / "x").train) == 4


def test_links_that_fan_out_are_each_followed_once(tmp_path):
    put(tmp_path / "x", "0/a.png")
    for number in range(1, 40):
        folder = tmp_path / "x" / str(number)
        folder.mkdir()
        for name in ("one", "two"):
            (folder / name).symlink_to(tmp_path / "x" / str(number - 1))
    assert len(load(tmp_path / "x").train) < 100


def test_a_file_that_becomes_readable_is_read(tmp_path):
    put(tmp_path / "x", "a.png")
    (tmp_path / "x" / "b.png").symlink_to(tmp_path / "later.png")
    assert len(load(tmp_path / "x", on_error="skip").train) == 1
    put(tmp_path, "later.png")
    assert len(load(tmp_path / "x", on_error="skip").train) == 2


def test_files_of_the_same_size_and_time_that_change_places_are_seen(tmp_path):
    root = tmp_path / "x"
    put(root, "a.bmp", image=picture(value=(1, 1, 1)))
    put(root, "b.bmp", image=picture(value=(2, 2, 2)))
    for name in ("a.bmp", "b.bmp"):
        os.utime(root / name, (1, 1))
    assert load(root).train.values[:, 0, 0, 0].tolist() == [1, 2]
    (root / "a.bmp").rename(root / "c.bmp")
    (root / "b.bmp").rename(root / "a.bmp")
    (root / "c.bmp").rename(root / "b.bmp")
    assert load(root).train.values[:, 0, 0, 0].tolist() == [2, 1]


def test_a_pipe_with_an_images_name_is_not_waited_for(tmp_path):
    put(tmp_path / "x", "a.png")
    os.mkfifo(tmp_path / "x" / "b.png")
    assert len(load(tmp_path / "x").train) == 1


def test_a_name_that_is_no_text_is_read_and_shown_escaped(tmp_path):
    put(tmp_path / "x", "a.png")
    (tmp_path / "x" / "a.png").rename(tmp_path / "x" / os.fsdecode(b"\xff\xfe.png"))
    assert len(load(tmp_path / "x").train) == 1
    (tmp_path / "x" / os.fsdecode(b"bad\xff\nname.png")).write_bytes(b"nothing")
    message = refused(tmp_path / "x")
    assert r"bad\udcff\nname.png" in message and message.isprintable()


# What cannot be read


def bomb(side):
    """A PNG of a few hundred bytes that says it is `side` pixels wide and high."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def damaged(root):
    put(root, "good.png", "also.jpg")
    whole = (root / "also.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "empty.png").touch()
    (root / "text.gif").write_text("<html>")
    (root / "bomb.png").write_bytes(bomb(9000))
    (root / "bigger.png").write_bytes(bomb(60_000))
    (root / "gone.png").symlink_to("nowhere.png")
    (root / "tiff.png").write_bytes(b"II*\0" + bytes(100))
    return 7


def test_an_image_that_cannot_be_read_is_named_with_the_way_out(tmp_path):
    put(tmp_path / "x", "good.png")
    (tmp_path / "x" / "text.png").write_text("<html>")
    message = refused(tmp_path / "x")
    assert "text.png cannot be read as an image" in message and "dataset.on_error=skip" in message


def test_what_cannot_be_read_is_skipped_and_counted_on_request(tmp_path):
    count = damaged(tmp_path / "x")
    source = load(tmp_path / "x", on_error="skip")
    assert len(source.train) == 2
    note = next(note for note in source.notes if "skipped" in note)
    assert f"skipped {count} of {count + 2} images" in note and "bigger.png" in note
    again = load(tmp_path / "x", on_error="skip")
    assert again.notes == source.notes
    assert "cannot be read as an image" in refused(tmp_path / "x")


@pytest.mark.parametrize("side", [9000, 60_000])
def test_a_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "bomb.png").write_bytes(bomb(side))
    tracemalloc.start()
    message = refused(tmp_path / "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "bomb.png" in message and "pixels" in message and peak < 20e6


def test_labels_stay_with_their_images_when_some_are_skipped(tmp_path):
    for number in range(4):
        put(tmp_path / "x", f"{'ab'[number % 2]}/{number}.png", image=picture(value=(number, 0, 0)))
    (tmp_path / "x" / "a" / "1.png").write_text("broken")
    found = load(tmp_path / "x", on_error="skip").train
    assert dict(zip(found.values[:, 0, 0, 0].tolist(), found.labels.tolist())) == {0: 0, 2: 0, 1: 1, 3: 1}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "is a file"),
        (lambda path: path.mkdir(), "it is empty"),
        (lambda path: (path / "a").mkdir(parents=True), "it is empty"),
        (lambda path: (path.mkdir(), (path / "a.tif").touch()), "1 .tif"),
        (lambda path: put(path, "val/a.png", "train/.a.png", "test/b.png"), "no image in its train folder"),
        (lambda path: put(path, "train/a.png", "test/.b.png"), "no image in its test folder"),
        (lambda path: (path.mkdir(), (path / "a.png").touch()), "cannot be read as an image"),
    ],
)
def test_a_directory_without_images_is_said_to_be_one(tmp_path, make, said):
    make(tmp_path / "x")
    assert said in refused(tmp_path / "x")


def test_none_readable_is_an_error_even_when_skipping(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "a.png").touch()
    assert "none of its 1 images can be read" in refused(tmp_path / "x", on_error="skip")


def test_settings_out_of_range_are_refused():
    for options in ({}, {"path": "x", "channels": 2}, {"path": "x", "on_error": "ignore"}):
        with pytest.raises(ConfigError):
            Folder(**options)


# The cache


def no_decoding(monkeypatch):
    def fail(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoded, "_make", fail)


def test_a_second_start_maps_what_the_first_decoded(tmp_path, monkeypatch, capsys):
    put(tmp_path / "x", "a/1.png", "b/2.png", image=noise())
    first = load(tmp_path / "x")
    assert "decoding 2 images into" in capsys.readouterr().err
    no_decoding(monkeypatch)
    second = load(tmp_path / "x")
    assert isinstance(second.train.values, np.memmap) and np.array_equal(first.train.values, second.train.values)
    assert capsys.readouterr() == ("", "")
    assert not list((tmp_path / "x").glob(".*")), "nothing is written beside the images"


@pytest.mark.parametrize("change", ["added", "removed", "replaced", "touched", "size", "channels"])
def test_a_change_is_seen_and_old_states_do_not_pile_up(tmp_path, change):
    root = tmp_path / "x"
    put(root, "a.png", "b.png")
    load(root)
    options = {"size": 16}
    if change == "added":
        put(root, "c.png")
    elif change == "removed":
        (root / "b.png").unlink()
    elif change == "replaced":
        put(root, "a.png", image=picture(value=(1, 2, 3)))
    elif change == "touched":
        os.utime(root / "a.png", (1, 1))
    else:
        options = {"size": 8} if change == "size" else {"channels": 1}
    found = load(root, **options).train.values
    assert len(found) == {"added": 3, "removed": 1}.get(change, 2)
    if change == "replaced":
        assert found[0, :, 0, 0].tolist() == [1, 2, 3]
    places = list((tmp_path / "cache" / "vae_cli" / "decoded").iterdir())
    assert len(places) == (2 if change in ("size", "channels") else 1)
    assert all(len(list(place.glob("*.bytes"))) == 1 for place in places)


@pytest.mark.parametrize("damage", ["cut", "no index", "broken index", "killed"])
def test_a_cache_that_is_not_whole_is_made_anew(tmp_path, damage):
    put(tmp_path / "x", "a.png", "b.png")
    whole = load(tmp_path / "x").train.values.copy()
    (place,) = (tmp_path / "cache" / "vae_cli" / "decoded").iterdir()
    values, index = next(place.glob("*.bytes")), next(place.glob("*.json"))
    if damage == "cut":
        values.write_bytes(values.read_bytes()[:-1])
    elif damage == "no index":
        index.unlink()
    elif damage == "broken index":
        index.write_text('{"skipped": [[99, "x"]]}')
    else:
        index.unlink()
        values.unlink()
        (place / ".123.tmp").write_bytes(b"half")
    assert np.array_equal(load(tmp_path / "x").train.values, whole)
    assert not list(place.glob(".*.tmp"))


def test_a_cache_without_room_or_rights_is_named(tmp_path, monkeypatch):
    put(tmp_path / "x", "a.png")
    (tmp_path / "file").touch()
    assert "cannot be written" in str(
        pytest.raises(DataError, load, tmp_path / "x", cache=str(tmp_path / "file")).value
    )

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        load(tmp_path / "x")
    (place,) = (tmp_path / "cache" / "vae_cli" / "decoded").iterdir()
    assert not any(place.iterdir())


def test_two_starts_at_once_decode_once(tmp_path):
    for number in range(50):
        put(tmp_path / "x", f"{number}.png")
    code = "import sys; from vae_cli.data import Folder; print(Folder(sys.argv[1]).load().train.values.sum())"
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [run.communicate() for run in runs]
    assert len({out for out, _ in outputs}) == 1
    assert sum("decoding 50 images" in err for _, err in outputs) == 1


def test_an_interrupted_decoding_leaves_nothing(tmp_path, monkeypatch):
    put(tmp_path / "x", "a.png")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoded, "_outcomes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "x")
    (place,) = (tmp_path / "cache" / "vae_cli" / "decoded").iterdir()
    assert not any(place.iterdir())


# Sets that stay on the disk


@pytest.fixture
def mapped_file(tmp_path):
    path = tmp_path / "large.npy"
    np.save(path, RNG.integers(0, 256, (16_000, 1, 64, 64), dtype=np.uint8))
    return path


def peak_of(act):
    tracemalloc.start()
    found = act()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found, peak


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
    import threading

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
    monkeypatch.setattr(batches, "_ahead", lambda read, parts: ahead.append(read) or iter(()))
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


def test_a_folder_trains_from_the_shell_and_again_from_the_cache(tmp_path):
    from vae_cli import cli

    for number in range(30):
        put(tmp_path / "my photos", f"{'ab'[number % 2]}/{number}.jpg", image=noise(40, 30))
    options = ["dataset=folder", f"dataset.path={tmp_path / 'my photos'}", "dataset.image_size=8", "epochs=1"]
    for run in ("one", "two"):
        with pytest.raises(SystemExit) as stop:
            cli.train([*options, f"hydra.run.dir={tmp_path / run}"])
        assert stop.value.code == 0
    first, second = (json.loads((tmp_path / run / "summary.json").read_text()) for run in ("one", "two"))
    assert first["test"] == second["test"]
    shutil.rmtree(tmp_path / "cache")
    with pytest.raises(SystemExit) as stop:
        cli.train([f"resume={tmp_path / 'two'}", "epochs=2"])
    assert stop.value.code == 0


DECODE = """
import io, os, sys, time
from pathlib import Path
import numpy as np
from vae_cli.data.sources.decoded import Pictures, decoded

def prepare(file):
    with open("decoded.txt", "a") as told:
        told.write(f"{os.getpid()}\\n")
    time.sleep(float(sys.argv[1]))
    return np.full((1, 2, 2), file.read()[0], np.uint8)

pictures = Pictures(list("abcdef"), lambda name: io.BytesIO(name.encode()), prepare, (1, 2, 2), "state")
print(decoded(pictures, Path("cache"), "letters", "mend it").values[:, 0, 0, 0].tolist())
"""


def decoding(folder, seconds):
    import subprocess
    import sys

    call = [sys.executable, "-c", DECODE, str(seconds)]
    return subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path, limit=30):
    import time

    deadline = time.monotonic() + limit
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


def test_one_process_decodes_while_the_others_wait(tmp_path):
    processes = [decoding(tmp_path, 0.3) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert {said for said, _ in answers} == {"[97, 98, 99, 100, 101, 102]\n"}
    assert len((tmp_path / "decoded.txt").read_text().split()) == 6
    waiting = "letters: waiting for another process that is making it ready\n"
    assert sorted(complaint.count("decoding 6 images") for _, complaint in answers) == [0, 0, 1]
    assert all(complaint == waiting or "decoding 6 images" in complaint for _, complaint in answers)


def test_when_the_process_that_decodes_is_killed_another_takes_over(tmp_path):
    first = decoding(tmp_path, 60)
    wait_for(tmp_path / "decoded.txt")
    second = decoding(tmp_path, 0)
    assert "waiting" in second.stderr.readline()
    first.kill()
    first.communicate(timeout=60)
    said, complaint = second.communicate(timeout=60)
    assert said == "[97, 98, 99, 100, 101, 102]\n" and "decoding 6 images" in complaint
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["state.bytes", "state.json"]


def test_where_there_are_no_locks_everybody_goes_on(tmp_path, monkeypatch):
    import fcntl

    from vae_cli.data.download.lock import alone

    def impossible(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", impossible)
    with alone(tmp_path / "lock", "x") as waited, alone(tmp_path / "nowhere" / "lock", "x") as other:
        assert not waited and not other
