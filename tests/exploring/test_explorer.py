"""Every kind of model can be explored."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

import vae_cli
from tests.support.exploring import explorer, pixels
from tests.support.exporting import untrained
from tests.support.pages import trained
from vae_cli.build.trained import Trained
from vae_cli.data import DataFacts
from vae_cli.errors import DataError
from vae_cli.exploring.explorer import Explorer
from vae_cli.exploring.page import page_facts, render


@pytest.mark.parametrize(
    "settings",
    [
        ["latent_dim=1"],
        ["latent_dim=2", "posterior=full_normal", "dataset.binarize=dynamic"],
        ["latent_dim=3", "prior=flow", "posterior=flow"],
        ["latent_dim=3", "prior=vampprior", "prior.components=20", "conditional=true"],
        ["latent_dim=14", "prior=mixture_of_normals", "likelihood=categorical"],
    ],
)
def test_a_model_of_every_kind_answers_everything(tmp_path, settings):
    run = trained(tmp_path / "run", "epochs=1", "report=false", *settings)
    for has_test in (True, False):
        shown = explorer(run, has_test)
        label = 3 if shown.model.classes else None
        z = shown.start
        drawn = shown.draw(1, 1.0, label)
        walk = shown.walk(z, torch.tensor(drawn["z"]), (label, label), 3)["images"]
        for image in (shown.image(z, label)["image"], drawn["image"], *walk):
            assert pixels(image).shape == (8, 8)
        x, y = (shown.axes * 2)[:2]
        assert len(shown.points(x, y)["points"]) == (180 if has_test else 0)
        assert len(shown.neighbours(z)["neighbours"]) == (8 if has_test else 0)
        facts = page_facts(shown, "run")
        assert len(facts["start"]) == len(shown.dimensions) == shown.model.prior.latent_dim
        assert all(
            axis["low"] <= axis["start"] <= axis["high"] and axis["low"] < axis["high"] for axis in facts["axes"]
        )
        assert "nan" not in render(shown, "run", "nonce").lower().partition('id="facts"')[2].partition("</script>")[0]


@pytest.mark.parametrize("binarize", ["none", "static", "dynamic", "threshold"])
def test_the_code_of_a_picture_is_that_of_the_python_door(tmp_path, binarize):
    run = trained(tmp_path / "run", "epochs=1", "report=false", f"dataset.binarize={binarize}")
    image, file = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)), io.BytesIO()
    image.save(file, "PNG")
    expected = vae_cli.load(run, device="cpu").encode(image).mean[0].tolist()
    assert explorer(run).encode(file.getvalue(), None)["z"] == pytest.approx(expected, abs=6e-5)


def test_a_model_of_vectors_is_refused_with_what_is_shown(plain):
    facts = DataFacts("rows", (7,), "unit", 0, 10)
    with pytest.raises(DataError, match="shows gray and RGB images, and this model's examples are 7"):
        Explorer(Trained(plain.model, facts, {}, {"step": 0}), None)


@pytest.mark.parametrize("sizes", [("[4,2]", "[16,12]"), ("[4]", "[16]")])
def test_a_hierarchy_is_refused_with_what_shows_its_levels(sizes):
    ladder = untrained("model=ladder", *(f"model.{key}={each}" for key, each in zip(("latents", "widths"), sizes)))
    with pytest.raises(
        DataError, match=r"^vae-explore moves through one latent vector, .* a hierarchy; levels.png"
    ) as no:
        Explorer(ladder, None)
    assert "\n" not in str(no.value)
