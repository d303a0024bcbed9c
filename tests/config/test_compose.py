"""Configs composed from command lines, presets and folders of one's own."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.refusals import refusal
from vae_cli.build.registry import check_groups
from vae_cli.config import compose
from vae_cli.errors import ConfigError


def composed(*argv):
    return compose.compose("train", argv)


def test_the_defaults_are_right():
    plain = composed()
    assert plain["encoder"]["hidden"] == [400]
    assert plain["optimizer"]["lr"] == 1e-3
    assert "hydra" not in plain
    assert "experiment" not in plain


def test_a_preset_wins_over_defaults_and_the_line_over_the_preset():
    preset = composed("experiment=mnist_conv")
    assert (preset["epochs"], preset["encoder"]["channels"]) == (20, [32, 64])
    mine = composed("epochs=3", "experiment=mnist_conv", "encoder=mlp")
    assert (mine["epochs"], mine["encoder"]["hidden"], mine["decoder"]["channels"]) == (3, [400], [64, 32])


def test_numbers_are_numbers():
    plain = composed("optimizer.lr=1e-3", "optimizer.eps=1", "latent_dim=1_000", "objective.beta=.5")
    values = (
        plain["optimizer"]["lr"],
        plain["optimizer"]["eps"],
        plain["latent_dim"],
        plain["objective"]["beta"],
    )
    assert values == (1e-3, 1, 1000, 0.5)


def test_what_the_environment_spells_is_a_number_where_one_is_asked_for(monkeypatch):
    words = {"SEED": "7", "NORM": "1e2", "YES": "true", "NONE": "null", "NAME": "2024", "TIME": "10min"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    typed = {
        "seed": ("SEED", 7),
        "clip_grad_norm": ("NORM", 100.0),
        "compile": ("YES", True),
        "threads": ("NONE", None),
        "data_dir": ("NAME", "2024"),
        "checkpoint_every": ("TIME", "10min"),
        "log_every": ("SEED", 7),
    }
    plain = composed(*(f"{key}=${{oc.env:{name}}}" for key, (name, _) in typed.items()))
    assert {key: plain[key] for key in typed} == {key: value for key, (_, value) in typed.items()}
    assert refusal("seed=${oc.env:NORM}x") == "seed=1e2x: seed accepts an integer from 0 to 2**63 - 1"
    assert refusal("seed=${oc.env:NORM}").startswith("seed=1e2: seed accepts an integer")
    between = compose.compose("sample", ["checkpoint=a", "mode=interpolate", "between=[${oc.env:SEED},17]"])["between"]
    assert between == [7, 17]


def test_what_the_environment_spells_is_a_number_inside_a_group_too(monkeypatch):
    words = {"RATE": "1e-2", "WIDTH": "16", "BETA": "4", "CAPACITY": "null", "KL": "monte_carlo"}
    for name, value in words.items():
        monkeypatch.setenv(name, value)
    typed = ["optimizer.lr=${oc.env:RATE}", "encoder.hidden=[${oc.env:WIDTH},8]", "objective.beta=${oc.env:BETA}"]
    typed += ["objective.capacity=${oc.env:CAPACITY}", "objective.kl=${oc.env:KL}"]
    checked, _ = check_groups(composed(*typed), frozenset())
    assert checked["optimizer"]["lr"] == 0.01 and checked["encoder"]["hidden"] == [16, 8]
    assert checked["objective"]["beta"] == 4.0 and checked["objective"]["capacity"] is None
    assert checked["objective"]["kl"] == "monte_carlo"
    with pytest.raises(ConfigError, match="optimizer.lr=fast: optimizer.lr accepts a number"):
        check_groups(composed("optimizer.lr=fast"), frozenset())


def test_a_users_own_class_and_keys_pass_inside_a_group():
    plain = composed("encoder._target_=my.Encoder", "+encoder.width=3", "encoder.hidden=auto")
    assert plain["encoder"] == {
        "_target_": "my.Encoder",
        "hidden": "auto",
        "activation": "relu",
        "width": 3,
    }


def test_data_dir_comes_from_the_environment(monkeypatch):
    monkeypatch.setenv("VAE_DATA_DIR", "/some where")
    assert composed()["data_dir"] == "/some where"
    assert composed("data_dir=other")["data_dir"] == "other"


def test_other_settings_pass():
    composed("hydra.verbose=true", "+hydra.job.env_set.A=b", "~optimizer.betas", "optimizer.lr=1")


def test_small_commands_take_hydras_settings_without_effect(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = ["hydra.run.dir=x", "hydra.verbose=true", "hydra/launcher=basic", "hydra.sweeper.max_batch_size=3"]
    plain = compose.compose("sample", ["checkpoint=a b", *settings])
    assert plain["checkpoint"] == "a b"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_ones_own_adds_options(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nlatent_dim: 5\n")
    folder = str(tmp_path)
    assert composed("experiment=mine", "--config-dir", folder)["latent_dim"] == 5
    assert composed("--config-dir", folder, "experiment=mine", "latent_dim=6")["latent_dim"] == 6
    assert "did you mean mine?" in refusal("experiment=mime", "--config-dir", folder)


@pytest.mark.parametrize(
    "text",
    ["latent_dim: 5\n", "optimizer: {lr: 0.1}\n", "# mine\n", "#\n# @package _global_\nlatent_dim: 5\n"]
    + [f"defaults:\n  - override /encoder: conv\n{rest}" for rest in ("", "epochs: 3\n")],
)
def test_a_preset_that_is_not_at_the_root_is_an_error_with_the_fix(text, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text(text)
    assert "begin it" in (said := refusal("experiment=mine", "--config-dir", str(tmp_path))) or "begin its" in said
    assert said.endswith("# @package _global_") and said.startswith("experiment")


@pytest.mark.parametrize("option", ["prior: {_target_: my.Prior}\n", "scale: 2\n"])
def test_an_option_file_without_a_class_at_its_root_is_an_error_with_the_fix(option, tmp_path):
    (tmp_path / "prior").mkdir()
    (tmp_path / "prior/mine.yaml").write_text(option)
    said = refusal("prior=mine", "--config-dir", str(tmp_path))
    assert said.startswith("prior: its option file") and "_target_: my_package.MyClass" in said


def test_a_preset_that_chooses_an_option_like_a_key_is_told_the_way(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("# @package _global_\nencoder: conv\n")
    said = refusal("experiment=mine", "--config-dir", str(tmp_path))
    assert said == "encoder: conv: a file chooses it in its defaults list, as - override /encoder: conv"


def test_a_primary_file_of_ones_own_builds_on_the_packages(tmp_path):
    (tmp_path / "mine.yaml").write_text("defaults: [train, _self_]\nlatent_dim: 5\n")
    folder = str(tmp_path)
    assert composed("--config-dir", folder, "--config-name", "mine")["latent_dim"] == 5
    assert composed("--config-path", folder, "--config-name", "mine.yaml")["latent_dim"] == 5


def test_a_wrong_preset_is_answered_in_one_line(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/odd.yaml").write_text("# @package _global_\nlatent_dm: 5\n")
    (tmp_path / "experiment/broken.yaml").write_text("a: [1\nb: 2\n")
    folder = ["--config-dir", str(tmp_path)]
    assert "did you mean latent_dim?" in refusal(*folder, "experiment=odd")
    assert "\n" not in refusal(*folder, "experiment=broken")


def test_torch_is_not_imported_to_compose():
    code = "import sys; from vae_cli.config.compose import compose; compose('train'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])


def test_a_preset_that_leaves_its_keys_under_its_own_group_is_an_error_with_the_fix(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/mine.yaml").write_text("latent_dim: 5\n")
    message = refusal("--config-dir", str(tmp_path), "experiment=mine")
    assert message.startswith("experiment.latent_dim: ") and message.endswith("# @package _global_")
