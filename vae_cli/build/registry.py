"""From a `_target_` to an object; the only place that resolves one."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vae_cli.data import Dataset
from vae_cli.distributions import Likelihood, Posterior, Prior
from vae_cli.errors import ConfigError, describe
from vae_cli.loggers import Logger
from vae_cli.objectives import Objective
from vae_cli.schedules import Schedule

Config = dict[str, Any]
KINDS: dict[str, type] = {
    "dataset": Dataset,
    "encoder": nn.Module,
    "decoder": nn.Module,
    "posterior": Posterior,
    "prior": Prior,
    "likelihood": Likelihood,
    "objective": Objective,
    "optimizer": torch.optim.Optimizer,
    "scheduler": Schedule,
    "logger": Logger,
}
# What the program itself knows, and passes to a class that asks for it by name.
FACTS: dict[str, frozenset[str]] = {
    "dataset": frozenset({"data_dir"}),
    "encoder": frozenset({"shape", "out_features", "classes"}),
    "decoder": frozenset({"latent_dim", "out_shape", "classes"}),
    "posterior": frozenset({"latent_dim"}),
    "prior": frozenset({"latent_dim", "shape", "classes", "size"}),
    "likelihood": frozenset({"shape"}),
    "objective": frozenset({"mc_samples", "steps_per_epoch", "size"}),
    "optimizer": frozenset({"params", "matrices"}),
    "scheduler": frozenset({"steps_per_epoch", "total_steps"}),
    "logger": frozenset(),
}


def resolve(group: str, target: Any, trusted: Collection[str] | None = None) -> type:
    """The class that `target` names for a group.

    Args:
        group: one of `KINDS`.
        target: a dotted path such as `vae_cli.networks.MLPEncoder`.
        trusted: None for a config typed at a shell, where any class may be named; for a config out of a file,
            the packages besides this one that a person allowed.

    Raises:
        ConfigError: if there is no such class, it is of another kind, or the file may not name it.
    """
    cls = _locate(group, target, trusted)
    if not (inspect.isclass(cls) and issubclass(cls, KINDS[group])):
        raise ConfigError(f"{group}._target_={target} is no {KINDS[group].__name__} class")
    if trusted is not None and not _may_build(cls, trusted):
        raise ConfigError(
            f"{group}: the file builds {cls.__module__}.{cls.__qualname__}, which is not of vae_cli; "
            f"if you trust it, add allow={cls.__module__.partition('.')[0]}"
        )
    return cls


def _may_build(cls: type, trusted: Collection[str]) -> bool:
    if issubclass(cls, torch.optim.Optimizer) and cls.__module__.startswith("torch.optim."):
        return True
    return cls.__module__.partition(".")[0] in {"vae_cli", *trusted}


def _locate(group: str, target: Any, trusted: Collection[str] | None) -> Any:
    module, _, name = str(target).rpartition(".")
    package = module.partition(".")[0]
    if not module:
        raise ConfigError(f"{group}._target_={target} names no class: give package.Class")
    if trusted is not None and package not in {"vae_cli", *trusted} and not f"{module}.".startswith("torch.optim."):
        raise ConfigError(f"{group}._target_={target} is not of vae_cli; if you trust it, add allow={package}")
    try:
        _let_find(package)
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{group}._target_={target} cannot be imported: {describe(error)}") from error
    except Exception as error:  # whatever a module of the user's own does on import
        why = f"{type(error).__name__}: {describe(error)}"
        raise ConfigError(f"{group}._target_={target}: importing {module} fails with {why}") from error


def _let_find(package: str) -> None:
    """Look in the current directory for a package that is nowhere else: a console script, unlike python -m, does
    not, and a person who names my_package means the one before them."""
    if importlib.util.find_spec(package) is None and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))


def construct(
    group: str, options: Mapping[str, Any], facts: Mapping[str, Any], trusted: Collection[str] | None = None
) -> Any:
    """An object of a group's chosen class, from its options and the facts that it asks for.

    Raises:
        ConfigError: if the class refuses its arguments.
    """
    assert facts.keys() <= FACTS[group], f"undeclared facts for {group}"
    cls = resolve(group, options["_target_"], trusted)
    arguments = {key: value for key, value in options.items() if key != "_target_"}
    accepted = _parameters(cls)
    arguments |= {key: value for key, value in facts.items() if accepted is None or key in accepted}
    try:
        return cls(**arguments)
    except ConfigError as error:
        prefix = "" if f"{group}." in str(error) else f"{group}."
        raise ConfigError(f"{prefix}{error}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise ConfigError(f"{group}={cls.__name__} does not take these settings: {describe(error)}") from error


def _parameters(cls: type) -> dict[str, inspect.Parameter] | None:
    """The constructor's arguments by name, or None where it takes any."""
    parameters = dict(inspect.signature(cls).parameters)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return None
    return parameters


def settle(config: Config, given: Collection[str], trusted: Collection[str] | None = None) -> tuple[Config, list[str]]:
    """Hold every group's keys against the class that was chosen for it.

    Args:
        config: the plain config.
        given: dotted keys that a person typed. Where they typed another `_target_`, keys that came from the
            replaced option's file and that the new class does not take are dropped.
        trusted: see `resolve`.

    Returns:
        The config without what was dropped, and the dropped keys.

    Raises:
        ConfigError: for a key the class does not take, or one that the program itself sets.
    """
    settled, dropped = dict(config), []
    for group in KINDS:
        node = config[group]
        if node["_target_"] == "auto":
            _check_bare(group, node)
            continue
        accepted = _parameters(resolve(group, node["_target_"], trusted))
        replaced = f"{group}._target_" in given
        kept = {}
        for key, value in node.items():
            path = f"{group}.{key}"
            if key in FACTS[group]:
                raise ConfigError(f"{path} is set by the program and cannot be given")
            if key == "_target_" or accepted is None or key in accepted:
                kept[key] = value
            elif replaced and path not in given:
                dropped.append(path)
            else:
                raise ConfigError(_unknown(path, group, accepted))
        settled[group] = kept
    return settled, dropped


def _check_bare(group: str, node: Mapping[str, Any]) -> None:
    for key in node.keys() - {"_target_"}:
        raise ConfigError(f"{group}.{key}: {group}=auto takes no keys; choose an option that has {key} by name")


def _unknown(path: str, group: str, accepted: Mapping[str, Any]) -> str:
    known = [key for key in accepted if key not in FACTS[group]]
    near = difflib.get_close_matches(path.partition(".")[2], known, n=1)
    hint = f"did you mean {group}.{near[0]}?" if near else f"it takes {', '.join(known) or 'no keys'}"
    return f"unknown key {path}: {hint}"
