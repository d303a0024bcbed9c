"""Directories of images as people have them."""

import json
import os
import shutil
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.pictures import load, noise, picture, put
from vae_cli.data import Folder
from vae_cli.data.batches import pixels
from vae_cli.data.sources import folder
from vae_cli.errors import ConfigError, DataError

CPU = torch.device("cpu")


def refused(root, **options):
    with pytest.raises(DataError) as caught:
        load(root, **options)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)
    return str(caught.value)


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
    assert any("2 files of kinds that are not read" in note and ".txt" in note for note in source.notes)


def test_subfolders_name_the_classes(tmp_path):
    root = tmp_path / "x"
    put(root, "dog/1.png", "cat/1.png", "cat/deep/2.png")
    (root / "empty").mkdir()
    source = load(root)
    assert source.train.labels.tolist() == [0, 0, 1] and source.train.labels.dtype == np.int64
    assert any("2 classes by folder: cat, dog" in note for note in source.notes)


def test_class_folders_name_the_labels_of_the_data(tmp_path):
    for number in range(12):
        put(tmp_path / "x", f"{('cat', 'dog', 'é')[number % 3]}/{number}.png")
    assert Folder(str(tmp_path / "x"), image_size=4).splits().facts.class_names == ("cat", "dog", "é")
    put(tmp_path / "y", *(f"{number}.png" for number in range(12)))
    assert Folder(str(tmp_path / "y"), image_size=4).splits().facts.class_names == ()


def test_what_sizes_and_colors_were_made_is_said(tmp_path):
    put(tmp_path / "x", "a.png", image=picture(48, 48))
    put(tmp_path / "x", "b.png", image=picture(48, 48, (9, 9, 9)))
    (note,) = load(tmp_path / "x", size=28, channels=1).notes
    assert note == "images resized from 48x48 to 28x28 and 1 made gray from color"
    put(tmp_path / "x", "c.png", image=picture(50, 30))
    (note,) = load(tmp_path / "x", size=28).notes
    assert note == "images cropped and resized from 50x30 to 48x48 to 28x28"
    put(tmp_path / "y", "a.png", image=picture(16, 16))
    assert load(tmp_path / "y").notes == load(tmp_path / "y").notes == ()


def test_the_largest_value_of_12_bits_in_16_is_said_with_the_way_to_make_it_white(tmp_path):
    (tmp_path / "x").mkdir()
    levels = (np.arange(256, dtype=np.uint16) * 16).reshape(16, 16)
    Image.fromarray(levels).save(tmp_path / "x" / "a.png")
    (note,) = load(tmp_path / "x", channels=1).notes
    assert "1 image with more than 8 bits a value; the largest value is 4,080 of 65535" in note
    assert "dataset.range=4095 makes that white" in note
    bright = load(tmp_path / "x", channels=1, range=4095)
    assert bright.notes == () and bright.train.values.max() == 254
    assert "or set dataset.range to" in refused(tmp_path / "x", channels=1, range=1000)


def test_pages_beyond_the_first_and_files_that_need_a_plug_in_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "needed_package", {".heic": "pillow-heif"}.get)
    put(tmp_path / "x", "a.png", image=picture(16, 16))
    picture(16, 16).save(tmp_path / "x" / "b.tif", save_all=True, append_images=[picture(16, 16)])
    (tmp_path / "x" / "c.HEIC").write_bytes(b"x")
    (tmp_path / "x" / "d.svg").write_bytes(b"x")
    notes = load(tmp_path / "x").notes
    assert "left out 1 .heic image: pip install pillow-heif to read them" in notes
    assert "left out 1 file of kinds that are not read: 1 .svg" in notes
    assert "1 file with several pages, of which the first is taken" in notes
    (tmp_path / "y").mkdir()
    (tmp_path / "x" / "c.HEIC").rename(tmp_path / "y" / "c.heic")
    assert "it holds 1 .heic: pip install pillow-heif" in refused(tmp_path / "y")


def test_images_beside_class_folders_make_a_set_without_labels_and_say_so(tmp_path):
    put(tmp_path / "x", "dog/1.png", "cat/1.png", "stray.png")
    source = load(tmp_path / "x")
    assert source.train.labels is None and len(source.train) == 3
    assert any("no labels: 1 image" in note for note in source.notes)


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
    assert any("left out 1 image outside" in note for note in source.notes)


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
        splits = [pixels(part, slice(None), CPU)[:, 0, 0, 0] for part in (data.train, data.validation, data.test)]
        return [part.mul(255).round().int().tolist() for part in splits]

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
    images = load(tmp_path / "x", on_error="skip").train
    assert dict(zip(images.values[:, 0, 0, 0].tolist(), images.labels.tolist())) == {0: 0, 2: 0, 1: 1, 3: 1}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.touch(), "is a file"),
        (lambda path: path.mkdir(), "it is empty"),
        (lambda path: (path / "a").mkdir(parents=True), "it is empty"),
        (lambda path: (path.mkdir(), (path / "a.svg").touch()), "1 .svg"),
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


def test_no_path_is_a_mistake_in_the_settings():
    with pytest.raises(ConfigError, match=r"dataset\.path is not set"):
        Folder()


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
