"""What is read from the files of conf/ without Hydra."""

import pytest
from omegaconf import OmegaConf

from vae_cli.build import options
from vae_cli.config import compose
from vae_cli.errors import ConfigError


def test_the_schema_read_from_text_is_what_yaml_says():
    for command in ("train", "sample"):
        loaded = OmegaConf.load(options.conf_dir() / f"{command}.yaml")
        included = [d for d in loaded.get("defaults", []) if isinstance(d, str) and d != "_self_"]
        files = [loaded, *(OmegaConf.load(options.conf_dir() / f"{name}.yaml") for name in included)]
        wanted = [k for file in files for k in file if k not in ("defaults", "hydra")]
        assert [k.name for k in options.keys(command)] == wanted
    named = {str(k): v for d in OmegaConf.load(options.conf_dir() / "train.yaml").defaults if not isinstance(d, str)
             for k, v in d.items() if not str(k).startswith("override")}  # fmt: skip
    assert options.groups("train") == {k.removeprefix("optional "): v or "null" for k, v in named.items()}


def test_an_option_file_is_plain_data():
    assert options.option("likelihood", "normal") == {
        "_target_": "vae_cli.distributions.NormalLikelihood",
        "scale": "learned",
    }
    assert "bernoulli" in options.options("likelihood")
    with pytest.raises(ConfigError, match="is one of .*normal"):
        options.option("likelihood", "norml")


def test_every_option_of_the_package_passes_its_own_rules():
    choices = {group: options.options(group) for group in options.groups("train")}
    for place in range(max(map(len, choices.values()))):
        compose.compose("train", [f"{group}={names[place % len(names)]}" for group, names in choices.items()])


def test_every_option_says_in_its_first_line_what_it_is_but_for_optimizers_named_after_their_class():
    for group in options.groups("train"):
        for name in options.options(group):
            assert options.first_comment(f"{group}/{name}") or group in ("optimizer", "scheduler")


def test_option_files_are_short():
    for path in options.conf_dir().rglob("*.yaml"):
        limit = 40 if path.parent == options.conf_dir() else 12 if path.parent.name != "experiment" else 30
        assert len(path.read_text().splitlines()) <= limit, path


@pytest.mark.parametrize(
    "group", ["encoder", "decoder", "posterior", "prior", "likelihood", "objective", "scheduler", "model"]
)
def test_the_option_that_settings_come_from_is_found_again(group):
    for name in options.general_options(group):
        node = options.option(group, name)
        assert options.choice(group, node) == name
        for key in node.keys() - {"_target_"}:
            found = options.choice(group, node | {key: "changed"})
            assert options.option(group, found)["_target_"] == node["_target_"]


def test_an_option_that_help_hides_is_named_only_where_no_other_has_its_class():
    for group in options.groups("train"):
        general, default = options.general_options(group), options.groups("train")[group]
        for name in options.options(group) if default != "null" else ():
            node = options.option(group, name)
            choice = options.choice(group, node)
            has_other = any(options.option(group, each)["_target_"] == node["_target_"] for each in general)
            assert choice in general or (choice == name and not has_other)


def test_two_levels_of_40_are_a_ladder_with_its_keys():
    typed = ["model=ladder", "model.latents=[40,40]", "model.widths=[300,300]"]
    expected = {"model": "ladder", "model.latents": [40, 40], "model.widths": [300, 300]}
    assert options.changes(compose.compose("train", typed)) == expected


def test_one_changed_key_leaves_the_nearest_option():
    assert options.choice("objective", options.option("objective", "stl") | {"beta": 4.0}) == "stl"
    assert options.choice("encoder", options.option("encoder", "mlp") | {"hidden": [16]}) == "mlp"
    assert options.choice("prior", {"_target_": "my_package.Laplace", "scale": 2}) == "my_package.Laplace"


def test_nothing_of_the_default_config_has_changed_and_what_was_typed_has():
    assert options.changes(compose.compose("train")) == {}
    typed = ["latent_dim=3", "encoder=conv", "optimizer.lr=0.1", "objective=stl"]
    expected = {"latent_dim": 3, "encoder": "conv", "optimizer.lr": 0.1, "objective": "stl"}
    assert options.changes(compose.compose("train", typed)) == expected
