"""Random numbers are functions of the place where they are used."""

import torch

from vae_cli import noise


def test_noise_by_image_does_not_depend_on_what_is_asked_for_with_it():
    whole = noise.by_image(700, 2, 3, 0, "e")
    torch.testing.assert_close(noise.by_image(300, 2, 3, 0, "e", start=240), whole[:, 240:540], rtol=0, atol=0)
    assert abs(whole.mean()) < 0.1 and abs(whole.std() - 1) < 0.1
