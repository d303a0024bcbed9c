"""From a `_target_` to an object; the only place that resolves one."""

from __future__ import annotations

import copy
import difflib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import nn

from vae_cli.build import own_parts
from vae_cli.build.options import OF_FLAT_MODELS, changes, choice
from vae_cli.constraints import BelowOne, Betas, NonNegative, as_annotated, check_value, from_text
from vae_cli.data import Dataset
from vae_cli.distributions import Likelihood, Posterior, Prior
from vae_cli.errors import ConfigError, describe
from vae_cli.loggers import Logger
from vae_cli.models import Model
from vae_cli.objectives import Objective
from vae_cli.schedules import Schedule

Config = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """What the classes of a group derive from, and what the program itself passes to those that take it."""

    base: type
    passed: frozenset[str] = frozenset()


GROUPS = {
    "dataset": Group(Dataset, frozenset({"data_dir"})),
    "model": Group(
        Model,
        frozenset({"encoder", "decoder", "posterior", "prior", "likelihood"})
        | {"shape", "make_prior", "precision", "classes", "preprocessing"},
    ),
    "encoder": Group(nn.Module, frozenset({"shape", "out_features", "classes"})),
    "decoder": Group(nn.Module, frozenset({"latent_dim", "out_shape", "classes"})),
    "posterior": Group(Posterior, frozenset({"latent_dim"})),
    "prior": Group(Prior, frozenset({"latent_dim", "shape", "classes", "size", "is_bounded"})),
    "likelihood": Group(Likelihood, frozenset({"shape", "kinds", "categories"})),
    "objective": Group(Objective, frozenset({"mc_samples", "steps_per_epoch", "size", "latent_dim"})),
    "optimizer": Group(torch.optim.Optimizer, frozenset({"params", "matrices"})),
    "scheduler": Group(Schedule, frozenset({"steps_per_epoch", "total_steps"})),
    "logger": Group(Logger),
    "features": Group(nn.Module),  # of vae-evaluate
}
# Attributes of an object that was passed in Python which must be what this training has.
FACTS = ("latent_dim", "shape", "mc_samples")
# torch.optim says the types of its arguments; these are their ranges.
OPTIMIZER_RANGES = {
    **dict.fromkeys(("lr", "eps", "weight_decay"), NonNegative),
    **dict.fromkeys(("momentum", "alpha"), BelowOne),
    "betas": Betas,
}


def resolve(group: str, target: Any, trusted: Collection[str] | None = None) -> type:
    """Return the class that `target` names for a group.

    Args:
        group: one of `GROUPS`.
        target: a dotted path such as `vae_cli.networks.MLPEncoder`, or the name of a part that was passed in Python.
        trusted: None for a config from a command line, where any class may be named; for a config out of a file,
            the packages besides this one that a person allowed.

    Raises:
        ConfigError: if there is no such class, it is of another kind, or the file may not name it.
    """
    if own_parts.is_own(target):
        return _class_of_own(group, own_parts.find(group, target))
    cls = _locate(group, target, trusted)
    if not (inspect.isclass(cls) and issubclass(cls, GROUPS[group].base)):
        raise ConfigError(f"{group}._target_={target} is no {GROUPS[group].base.__name__} class")
    is_torchs = issubclass(cls, torch.optim.Optimizer) and cls.__module__.startswith("torch.optim.")
    if trusted is not None and not is_torchs and cls.__module__.partition(".")[0] not in {"vae_cli", *trusted}:
        raise ConfigError(
            f"{group}: the file builds {cls.__module__}.{cls.__qualname__}, which is not of vae_cli; "
            f"if you trust it, add allow={cls.__module__.partition('.')[0]}"
        )
    return cls


def _class_of_own(group: str, part: Any) -> type:
    """Return the class of a part that was passed in Python.

    Raises:
        ConfigError: if it is of another kind than its group's.
    """
    cls, base = part if inspect.isclass(part) else type(part), GROUPS[group].base
    if isinstance(part, str):
        raise ConfigError(f"{group}={part!r}: an option is named in a string of its own, as in '{group}={part}'")
    if not issubclass(cls, base):
        what = "the class " if inspect.isclass(part) else "an object of "
        wanted = f"{base.__module__.rpartition('.')[0]}.{base.__name__}"
        raise ConfigError(f"{group}= is {what}{cls.__name__}; pass a subclass of {wanted}, or an object of one")
    return cls


def _locate(group: str, target: Any, trusted: Collection[str] | None) -> Any:
    module, _, name = str(target).rpartition(".")
    package = module.partition(".")[0]
    if not module:
        raise ConfigError(f"{group}._target_={target} names no class: give package.Class")
    if trusted is not None and package not in {"vae_cli", *trusted} and not f"{module}.".startswith("torch.optim."):
        raise ConfigError(f"{group}._target_={target} is not of vae_cli; if you trust it, add allow={package}")
    try:
        # A console script, unlike python -m, does not look in the current directory.
        if importlib.util.find_spec(package) is None and str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{group}._target_={target} cannot be imported: {describe(error)}") from error
    except Exception as error:  # whatever a module of the user's own does on import
        why = f"{type(error).__name__}: {describe(error)}"
        raise ConfigError(f"{group}._target_={target}: importing {module} fails with {why}") from error


def construct(
    group: str, options: Mapping[str, Any], passed: Mapping[str, Any], trusted: Collection[str] | None = None
) -> Any:
    """Return an object of a group's chosen class, or the object that was passed in Python for the group.

    Args:
        group: one of `GROUPS`.
        options: the group's config: `_target_` and arguments, which are checked against the class's annotations.
        passed: arguments of the program's own; a class gets those that it takes.
        trusted: see `resolve`.

    Raises:
        ConfigError: if the class refuses its arguments.
    """
    assert passed.keys() <= GROUPS[group].passed, f"undeclared arguments for {group}"
    cls = resolve(group, options["_target_"], trusted)
    if is_own := own_parts.is_own(options["_target_"]):
        part = own_parts.find(group, options["_target_"])
        if not inspect.isclass(part):
            return _own_object(group, part, passed)
    accepted = constructor_parameters(cls)
    arguments = {} if is_own else {key: value for key, value in options.items() if key != "_target_"}
    arguments = _checked_values(group, cls, arguments)
    arguments |= {key: value for key, value in passed.items() if accepted is None or key in accepted}
    try:
        return cls(**arguments)
    except ConfigError as error:
        key = str(error).partition("=")[0]
        prefix = f"{group}." if key in arguments and group != "model" else ""
        raise ConfigError(f"{prefix}{error}") from error
    except (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise ConfigError(f"{group}={cls.__name__} does not take these settings: {describe(error)}") from error


def _own_object(group: str, part: Any, passed: Mapping[str, Any]) -> Any:
    """Return an object that was passed in Python; of what is trained a copy, so that it can be trained again.

    Raises:
        ConfigError: if it was made for other sizes.
    """
    for key in FACTS:
        own = getattr(part, key, passed.get(key))
        if key in passed and (tuple(own) if isinstance(own, (list, tuple)) else own) != passed[key]:
            what = f"the object has {key}={own}, and the model {key}={passed[key]}"
            raise ConfigError(f"{group}: {what}; make them alike, or pass the class")
    is_trained = isinstance(part, nn.Module) or isinstance(part, Objective) and part.module is not None
    return copy.deepcopy(part) if is_trained else part


def constructor_parameters(cls: type) -> dict[str, inspect.Parameter] | None:
    """Return the constructor's parameters by name, or None where it takes any."""
    signature = inspect.signature(cls).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in signature.values())
    return None if takes_any else dict(signature)


def _checked_values(group: str, cls: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return values out of a config, checked against the constructor's annotations, whole numbers as floats where those
    are wanted and texts as what they spell. A default is right whatever the annotation says."""
    signature = inspect.signature(cls).parameters
    annotations, checked = _annotations(cls), {}
    for key, value in arguments.items():
        default = signature[key].default if key in signature else inspect.Parameter.empty
        annotation = annotations.get(key, type(default) if isinstance(default, float) else Any)
        read = from_text(annotation, value)
        if type(read) is not type(default) or read != default:
            check_value(f"{group}.{key}", read, annotation)
        checked[key] = as_annotated(annotation, read)
    return checked


def _annotations(cls: type) -> dict[str, Any]:
    try:
        annotations = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    except Exception:  # a user's own class may name types that are imported for type checkers only
        return {}
    if cls.__module__.startswith("torch.optim."):
        signature = inspect.signature(cls).parameters
        numbers = {name: float for name, parameter in signature.items() if isinstance(parameter.default, float)}
        annotations |= {**numbers, **OPTIMIZER_RANGES}
    return annotations


def check_groups(
    config: Config, overridden: Collection[str], trusted: Collection[str] | None = None
) -> tuple[Config, list[str]]:
    """Check every group's keys and values against the class that was chosen for it.

    Args:
        config: the plain config.
        overridden: dotted keys from the command line. Where another `_target_` is among them, keys of the replaced
            option's file that the new class does not take are dropped.
        trusted: see `resolve`.

    Returns:
        The config without what was dropped and what its model does not take, and the dropped keys.

    Raises:
        ConfigError: for a key that the class does not take or that the program itself passes, or a wrong value.
    """
    checked, dropped = _for_its_model(config, overridden, trusted)
    for group in filter(checked.__contains__, GROUPS):
        options = config[group]
        if options["_target_"] == "auto":
            for key in options.keys() - {"_target_"}:
                raise ConfigError(f"{group}.{key}: {group}=auto takes no keys; choose an option that has {key} by name")
            continue
        cls = resolve(group, options["_target_"], trusted)
        if own_parts.is_own(options["_target_"]):
            continue
        accepted = constructor_parameters(cls)
        arguments = {}
        for key, value in options.items():
            path = f"{group}.{key}"
            if key in GROUPS[group].passed:
                raise ConfigError(f"{path} is set by the program and cannot be given")
            if key == "_target_":
                continue
            if accepted is None or key in accepted:
                arguments[key] = value
            elif f"{group}._target_" in overridden and path not in overridden:
                dropped.append(path)
            else:
                raise ConfigError(_unknown(path, group, accepted))
        values = _checked_values(group, cls, arguments)
        texts = {key: values[key] for key, value in arguments.items() if isinstance(value, (str, list))}
        checked[group] = {"_target_": options["_target_"]} | arguments | texts
    return checked, dropped


def _for_its_model(
    config: Config, overridden: Collection[str], trusted: Collection[str] | None
) -> tuple[Config, list[str]]:
    """Return a config without the keys that only a model of one level takes, if it has another; and those of them that
    a file has set.

    Raises:
        ConfigError: for such a key from the command line or from Python; for one that is missing.
    """
    cls, option = resolve("model", config["model"]["_target_"], trusted), choice("model", config["model"])
    if cls.is_flat:  # type: ignore[attr-defined]
        for key in OF_FLAT_MODELS:
            if key not in config:
                raise ConfigError(f"{key} is missing: model={option} needs it, leave it in")
        return dict(config), []
    own = {group for group in OF_FLAT_MODELS if own_parts.is_own(own_parts.target_of(config, group))}
    for key in sorted({*overridden, *own}):
        if key.partition(".")[0] in OF_FLAT_MODELS:
            keys = ", ".join(f"model.{name}" for name in constructor_parameters(cls) or () if name in config["model"])
            what = f"model={option} has {keys} in place of {', '.join(OF_FLAT_MODELS)}"
            raise ConfigError(f"{key}: {what}; leave it out, or choose model=vae")
    changed = [key for key in changes(config) if key.partition(".")[0] in OF_FLAT_MODELS]
    return {key: value for key, value in config.items() if key not in OF_FLAT_MODELS}, changed


def _unknown(path: str, group: str, accepted: Mapping[str, Any]) -> str:
    keys = [key for key in accepted if key not in GROUPS[group].passed]
    near = difflib.get_close_matches(path.partition(".")[2], keys, n=1)
    hint = f"did you mean {group}.{near[0]}?" if near else f"it takes {', '.join(keys) or 'no keys'}"
    return f"unknown key {path}: {hint}"
