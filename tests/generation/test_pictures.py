"""Pictures of a model."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.exporting import untrained
from tests.support.generation import used_and_test_images
from vae_cli.build import trained
from vae_cli.commands import sample
from vae_cli.config import compose
from vae_cli.generation import level_walks, pictures, walks


@pytest.mark.parametrize("mode", ["interpolate", "traverse", "manifold"])
def test_every_mode_draws_a_picture_and_fills_a_folder(mode, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sample.run(compose.compose("sample", [f"checkpoint={run}", f"mode={mode}"]))
    with Image.open({"interpolate": "interpolation", "traverse": "traversal"}.get(mode, mode) + ".png") as picture:
        assert picture.width > 11 * 56
    sample.run(compose.compose("sample", [f"checkpoint={run}", f"mode={mode}", "steps=2", "format=png", "output=x"]))
    assert {p.name for p in (tmp_path / "x").iterdir()} >= {"row_000_step_000.png", "row_001_step_001.png"}


def test_the_grids_of_a_model_are_those_of_vae_sample_and_the_same_every_time(run, tmp_path):
    model = trained.load(run / "checkpoints" / "best.safetensors", "cpu").model
    sample.run(compose.compose("sample", [f"checkpoint={run}", f"output={tmp_path / 'x.png'}", "seed=3"]))
    state = torch.get_rng_state()
    for _ in range(2):
        np.testing.assert_array_equal(
            np.asarray(pictures.sample_grid(model, 3)), np.asarray(Image.open(tmp_path / "x.png"))
        )
    assert torch.equal(torch.get_rng_state(), state)


def test_reconstructions_stand_below_their_images_and_traversals_in_a_row_each(run):
    model, x, _ = used_and_test_images(run)
    pairs = np.asarray(pictures.reconstruction_grid(model, x[:3]))
    np.testing.assert_array_equal(pairs[2:58:7, 2:58:7], (255 * x[0, 0]).round().byte())
    below = (255 * model.likelihood.image(model.reconstruct(x[:1]))[0, 0]).round().byte()
    np.testing.assert_array_equal(pairs[60:116:7, 2:58:7], below)
    picture = pictures.traversal_picture(model, model.encode(x).mean)
    assert picture.height > 2 * 56 and picture.width > 11 * 56


def test_images_of_labels_in_turn_have_a_row_for_each_label_with_its_name():
    assert [pictures.in_whole_rows(64, classes) for classes in (0, 1, 3, 10, 64, 65)] == [64, 64, 72, 70, 64, 64]
    y = torch.arange(6) % 3
    images = y.float().div(2)[:, None, None, None].expand(6, 1, 8, 8)
    grid = np.asarray(pictures.labeled_grid(images, y, ["circle", "a square"]))
    shades = grid[:, -116:].reshape(len(grid), 2, 58)[2:, :, :56].max((1, 2))
    assert [int(shades[58 * row : 58 * row + 56].max()) for row in range(3)] == [0, 128, 255]
    assert grid.shape[0] == 3 * 58 + 2 and (grid[:, :-116] < 128).any(), "names beside the rows"
    plain = [pictures.labeled_grid(images, labels) for labels in (None, torch.full((6,), 1), torch.arange(6))]
    assert {picture.size for picture in plain} == {(3 * 58 + 2, 2 * 58 + 2)}
    few = pictures.labeled_grid(images[:1].expand(72, 1, 8, 8), torch.arange(72) % 3, ["a", "b", "c"])
    assert few.height == 9 * 58 + 2 and 8 * 58 < few.width < 9 * 58, "three rows for each of few labels"


LADDER = ("model=ladder", "model.latents=[6,3]", "model.widths=[16,12]")


@pytest.mark.parametrize("more", [(), ("conditional=true", "prior=vampprior", "prior.components=3")])
def test_each_draw_of_a_picture_of_levels_stands_first_beside_three_that_share_more_levels_in_each_row(
    more, monkeypatch
):
    model, shown = untrained(*LADDER, *more).model, []
    monkeypatch.setattr(pictures, "walk_picture", lambda walk, images: shown.append((walk, images)))
    pictures.levels_picture(model, seed=0)
    [(walk, images)] = shown
    assert walk.rows == ["z1-z2 drawn", "z2 kept, z1 drawn"] and len(images) == 24
    assert walk.columns[:5] == ["draw 1", "anew 1", "anew 2", "anew 3", "draw 2"]
    every, upper = walk.z.unflatten(1, (3, 4))
    torch.testing.assert_close(every[:, 0], upper[:, 0])
    torch.testing.assert_close(upper[:, 1:, 6:], upper[:, :1, 6:].expand(-1, 3, -1))
    for drawn in (every[..., 6:], every[..., :6], upper[..., :6]):
        assert len(drawn.flatten(0, 1).unique(dim=0)) == 12


def test_traversals_of_a_hierarchy_are_those_of_its_top_level_however_active_the_others_are():
    model = untrained(*LADDER).model
    means = torch.randn(50, 9) * torch.tensor([9.0] * 6 + [1.0, 3.0, 2.0])
    walk = walks.traverse(model, means, 5, level="z2")
    assert [row.split()[0] for row in walk.rows] == ["z2[1]", "z2[2]", "z2[0]"]
    wanted = pictures.walk_picture(walk, torch.cat(list(walk.images(model))))
    np.testing.assert_array_equal(np.asarray(pictures.traversal_picture(model, means, steps=5)), np.asarray(wanted))


def test_rows_of_many_levels_are_chosen_evenly_from_none_to_all_but_one():
    assert level_walks.evenly(3, 12) == [0, 1, 2] and level_walks.evenly(1, 12) == [0]
    chosen = level_walks.evenly(40, 12)
    assert (chosen[0], chosen[-1], len(set(chosen))) == (0, 39, 12)
