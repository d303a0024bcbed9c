"""Classes resolved, and a config's keys and values held against their constructors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from torch import nn

from vae_cli.build import options, registry
from vae_cli.config import compose
from vae_cli.constraints import Count
from vae_cli.errors import ConfigError

if TYPE_CHECKING:
    from nowhere import Unresolvable

# Wrong values by key; of another option than the default's where the key has its name before it.
WRONG = {
    "optimizer.lr": "nan inf -1e-3 fast true",
    "optimizer.eps": "nan",
    "optimizer.weight_decay": "-1",
    "optimizer.betas": "[0.9,1] 0.9",
    "sgd optimizer.momentum": "-0.1 1 5 abc",
    "sgd optimizer.nesterov": "3",
    "rmsprop optimizer.alpha": "1 3 x",
    "muon optimizer.momentum": "1",
    "muon optimizer.lr": "-1",
    "encoder.hidden": "400 [0] [a] [true]",
    "decoder.hidden": "[2.5]",
    "encoder.activation": "3",
    "decoder.activation": "EMPTY",
    "conv encoder.channels": "[] 32",
    "resnet decoder.channels": "[]",
    "gated_mlp encoder.hidden": "[0]",
    "flow posterior.kind": "realnvp",
    "flow posterior.transforms": "0",
    "flow prior.bins": "0",
    "vampprior prior.components": "0",
    "vampprior prior.start": "zero",
    "mixture_of_normals prior.components": "1.5",
    "normal likelihood.scale": "0 lerned",
    "laplace likelihood.scale": "-1",
    "discretized_logistic_mixture likelihood.components": "0",
    "dataset.binarize": "yes true",
    "dataset.validation": "-1 0.1",
    "arrays dataset.path": "EMPTY",
    "folder dataset.channels": "2",
    "folder dataset.image_size": "0 5000",
    "folder dataset.on_error": "stop",
    "folder dataset.cache": "EMPTY",
    "emnist dataset.subset": "all",
    "objective.kl": "exact",
    "objective.beta": "-1 nan",
    "objective.beta_schedule": "cosine",
    "objective.warmup_epochs": "-1",
    "objective.free_bits": "-1",
    "objective.capacity": "-1",
    "iwae objective.groups": "0",
    "iwae objective.elbo_weight": "2",
    "beta_tc objective.gamma": "-1",
    "info_vae objective.weight": "-1",
    "factor_vae objective.gamma": "-1",
    "factor_vae objective.hidden": "[0]",
    "factor_vae objective.lr": "0",
    "factor_vae objective.betas": "[0.5] [0.5,1] [0.1,0.2,0.3]",
    "dip_vae objective.kind": "1",
    "dip_vae objective.off_diagonal": "-1",
    "dip_vae objective.diagonal": "-1 most",
    "scheduler.warmup_epochs": "inf -1",
    "cosine scheduler.final": "1.5",
    "multistep scheduler.gamma": "0",
    "multistep scheduler.milestones": "[1]",
    "mlflow logger.experiment_name": "EMPTY",
    "wandb logger.mode": "off",
}
RIGHT = {
    "optimizer.lr": "0",
    "optimizer.betas": "[0,0.5]",
    "optimizer.amsgrad": "true",
    "encoder.hidden": "[]",
    "dataset.validation": "0 null",
    "objective.beta": "0",
    "objective.kl": "monte_carlo",
    "objective.capacity": "3",
    "normal likelihood.scale": "0.1 per_pixel residual",
    "folder dataset.channels": "1",
    "wandb logger.mode": "null offline",
}


def settings(table):
    return [(key, "" if value == "EMPTY" else value) for key in table for value in table[key].split()]


@pytest.fixture(scope="module")
def defaults():
    return compose.compose("train")


def checked(defaults, key, text):
    """Check a config of one option with one key set as the command line would set it."""
    *option, key = key.split()
    group, _, name = key.partition(".")
    config = defaults | ({group: options.option(group, option[0])} if option else {})
    value = OverridesParser.create().parse_override(f"{key}={text}").value()
    value = OmegaConf.to_container(OmegaConf.create([value]))[0]
    config = config | {group: config[group] | {name: value}}
    registry.check_groups(config, frozenset({key}))


@pytest.mark.parametrize(("key", "text"), settings(WRONG))
def test_a_wrong_value_is_named_with_what_is_accepted(key, text, defaults):
    path = key.split()[-1]
    with pytest.raises(ConfigError) as caught:
        checked(defaults, key, text)
    assert str(caught.value).startswith(f"{path}=") and f": {path} accepts" in str(caught.value)


@pytest.mark.parametrize(("key", "text"), settings(RIGHT))
def test_a_right_value_passes(key, text, defaults):
    checked(defaults, key, text)


@pytest.mark.parametrize("group", registry.GROUPS)
def test_every_key_of_an_option_is_annotated_and_its_default_passes(group, defaults):
    for option in options.options(group):
        config = options.option(group, option)
        registry.check_groups(defaults | {group: config}, frozenset())
        if config["_target_"] != "auto":
            cls = registry.resolve(group, config["_target_"])
            annotations = registry._annotations(cls)
            assert config.keys() - {"_target_"} <= annotations.keys()


class Mine(nn.Module):
    def __init__(self, shape, out_features, width: Count = 3, depth: int = None, kind: Literal["a", "b"] = "a"):
        super().__init__()


class Odd(nn.Module):
    def __init__(self, shape, out_features, other: Unresolvable = 3, **more: object):
        super().__init__()


def test_the_keys_of_a_users_own_class_are_checked_without_a_table(defaults):
    own = {"_target_": f"{__name__}.Mine", "hidden": [400], "activation": "relu"}
    overridden = frozenset({"encoder._target_"})
    config, dropped = registry.check_groups(defaults | {"encoder": own | {"width": 2}}, overridden)
    assert config["encoder"] == {"_target_": own["_target_"], "width": 2}
    assert dropped == ["encoder.hidden", "encoder.activation"]
    with pytest.raises(ConfigError, match="encoder.width=0: encoder.width accepts an integer of at least 1"):
        registry.check_groups(defaults | {"encoder": own | {"width": 0}}, overridden)
    with pytest.raises(ConfigError, match="unknown key encoder.hidden: it takes width, depth, kind"):
        registry.check_groups(defaults | {"encoder": own}, overridden | {"encoder.hidden"})
    with pytest.raises(ConfigError, match="unknown key encoder.widht: did you mean encoder.width?"):
        registry.check_groups(defaults | {"encoder": own | {"widht": 3}}, overridden | {"encoder.widht"})


LADDER = options.option("model", "ladder")


def test_what_a_file_sets_of_a_flat_model_is_left_out_of_a_hierarchy_and_named(defaults):
    assert registry.check_groups(defaults | {"model": LADDER}, frozenset())[1] == []
    set_by_file = {"latent_dim": 40, "encoder": options.option("encoder", "gated_mlp")}
    config, dropped = registry.check_groups(defaults | {"model": LADDER} | set_by_file, frozenset())
    assert dropped == ["latent_dim", "encoder"] and not {*config} & {*options.OF_FLAT_MODELS}


@pytest.mark.parametrize("key", options.OF_FLAT_MODELS)
def test_a_key_that_a_flat_model_needs_is_missed_by_name_and_not_by_a_hierarchy(key, defaults):
    config = {name: value for name, value in defaults.items() if name != key}
    with pytest.raises(ConfigError, match=f"^{key} is missing: model=vae needs it, leave it in$"):
        registry.check_groups(config, frozenset())
    registry.check_groups(config | {"model": LADDER}, frozenset())


def test_a_default_is_right_whatever_its_annotation_says(defaults):
    own = {"_target_": f"{__name__}.Mine", "depth": None}
    registry.check_groups(defaults | {"encoder": own}, frozenset())
    with pytest.raises(ConfigError, match="encoder.depth accepts an integer"):
        registry.check_groups(defaults | {"encoder": own | {"depth": "deep"}}, frozenset())


def test_annotations_that_cannot_be_resolved_are_no_error(defaults):
    odd = {"_target_": f"{__name__}.Odd", "other": "x", "anything": [1]}
    config, dropped = registry.check_groups(defaults | {"encoder": odd}, frozenset())
    assert config["encoder"] == odd and not dropped


@pytest.mark.parametrize(("group", "key"), [("encoder", "shape"), ("prior", "latent_dim"), ("optimizer", "params")])
def test_what_the_program_passes_cannot_be_given(group, key, defaults):
    with pytest.raises(ConfigError, match=f"{group}.{key} is set by the program and cannot be given"):
        registry.check_groups(defaults | {group: defaults[group] | {key: 3}}, frozenset({f"{group}.{key}"}))


def test_auto_takes_no_keys(defaults):
    with pytest.raises(ConfigError, match="likelihood.scale: likelihood=auto takes no keys"):
        registry.check_groups(defaults | {"likelihood": {"_target_": "auto", "scale": 1}}, frozenset())


def test_values_are_checked_where_an_object_is_built():
    with pytest.raises(ConfigError, match=r"optimizer.lr=-1: optimizer.lr accepts a number of at least 0"):
        registry.construct("optimizer", {"_target_": "torch.optim.Adam", "lr": -1}, {"params": []})


@pytest.mark.parametrize(
    ("group", "target", "answer"),
    [
        ("encoder", "Encoder", "names no class"),
        ("encoder", "no_such_package.Encoder", "cannot be imported"),
        ("encoder", "vae_cli.networks.MLPEncodr", "cannot be imported"),
        ("encoder", "torch.optim.Adam", "is no Module class"),
        ("optimizer", "torch.optim.lr_scheduler.StepLR", "is no Optimizer class"),
    ],
)
def test_a_target_that_is_no_class_of_the_group_is_refused(group, target, answer):
    with pytest.raises(ConfigError, match=answer):
        registry.resolve(group, target)


def test_a_file_may_name_classes_of_this_package_and_of_torch_optim_alone():
    assert registry.resolve("optimizer", "torch.optim.Adam", trusted=()) is torch.optim.Adam
    for group, target in (("encoder", "torch.nn.Linear"), ("encoder", f"{__name__}.Mine")):
        with pytest.raises(ConfigError, match="if you trust it, add allow="):
            registry.resolve(group, target, trusted=())
    assert registry.resolve("encoder", f"{__name__}.Mine", trusted=(__name__.partition(".")[0],)) is Mine


def test_a_file_is_judged_on_the_class_and_not_on_its_path(monkeypatch):
    monkeypatch.setattr("vae_cli.networks.Linear", nn.Linear, raising=False)
    with pytest.raises(ConfigError, match="the file builds torch.nn.modules.linear.Linear, which is not of vae_cli"):
        registry.resolve("encoder", "vae_cli.networks.Linear", trusted=())
