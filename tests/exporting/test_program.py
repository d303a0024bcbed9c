"""Programs of torch.export, loaded without this package."""

import json
import subprocess
import sys

import numpy as np
import torch

from tests.support.exporting import untrained
from vae_cli.exporting import checks, program, programs

ALONE = """
import json, sys
sys.modules["vae_cli"] = sys.modules["zuko"] = None
import numpy, torch
extra = {"vae_cli.json": ""}
module = torch.export.load("encoder.pt2", extra_files=extra).module()
given = numpy.load("given.npz")
z = module(x=torch.from_numpy(given["x"]), noise=torch.from_numpy(given["noise"]))["z"]
numpy.save("z.npy", z.numpy())
print(json.loads(extra["vae_cli.json"])["inputs"][0]["dtype"])
"""


def test_a_program_is_loaded_and_run_without_this_package(tmp_path):
    trained = untrained("posterior=flow")
    encoder = programs.build("encoder", trained)
    program.write(encoder, trained, tmp_path / "encoder.pt2")
    images = checks.examples(trained, {"data_dir": None, "allow": None}, 7)
    given = checks.inputs(encoder, images.x, None)
    np.savez(tmp_path / "given.npz", **{name: value.numpy() for name, value in given.items()})
    ran = subprocess.run([sys.executable, "-c", ALONE], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip() == "uint8"
    with torch.no_grad():
        z, _ = trained.model.encode(images.x).rsample_and_log_prob(given["noise"])
    np.testing.assert_allclose(np.load(tmp_path / "z.npy"), z, atol=1e-5)


def test_a_file_holds_the_weights_of_its_part_alone(tmp_path):
    trained = untrained("encoder.hidden=[600]")
    sizes = {}
    for part in programs.PARTS:
        program.write(programs.build(part, trained), trained, tmp_path / f"{part}.pt2")
        sizes[part] = (tmp_path / f"{part}.pt2").stat().st_size
        assert (
            checks.check(
                programs.build(part, trained),
                program.runner(tmp_path / f"{part}.pt2"),
                checks.examples(trained, {"data_dir": None, "allow": None}, 70),
            )
            < 1e-6
        )
    weights = 4 * sum(p.numel() for p in trained.model.encoder.parameters())
    assert sizes["encoder"] > weights > sizes["decoder"] > sizes["prior"]


def test_the_parts_of_a_hierarchy_give_the_models_numbers_and_say_where_its_levels_stand(tmp_path):
    ladder = ("model=ladder", "model.latents=[4,2]", "model.widths=[16,12]")
    trained = untrained(*ladder, "prior=vampprior", "prior.components=5")
    images, path = checks.examples(trained, {"data_dir": None, "allow": None}, 70), tmp_path / "part.pt2"
    held = {}
    for part in programs.PARTS:
        own = programs.build(part, trained)
        program.write(own, trained, path)
        assert checks.check(own, program.runner(path), images) < 1e-5
        held[part] = set(torch.export.load(path).state_dict)
    noise = torch.randn(9, trained.model.prior_noise_dim)
    with torch.no_grad():
        z = trained.model.sample_latents(noise)
    np.testing.assert_allclose(program.runner(path)({"noise": noise.numpy()})["z"], z, atol=1e-5)
    assert any(name.startswith("model.encoder.") for name in held["encoder"])
    assert not any(".posterior." in name or ".encoder." in name for name in held["decoder"] | held["prior"])
    meanings = {value["name"]: value["meaning"] for value in programs.build("prior", trained).describe()["inputs"]}
    assert "number 4, counted from 0, chooses the component" in meanings["noise"]
    order = "4 of z1, 2 of z2, from the data up"
    values = [*programs.build("encoder", trained).outputs(), *programs.build("decoder", trained).inputs]
    assert all(order in value.meaning for value in values)


def test_every_program_describes_itself_as_json():
    for part in programs.PARTS:
        described = programs.build(part, untrained()).describe()
        assert json.loads(json.dumps(described))["part"] == part
        assert all(value["meaning"] for value in (*described["inputs"], *described["outputs"]))
