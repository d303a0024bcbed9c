"""Parts that Python code passes as objects or as classes, which a config can only name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from typing import Any

from vae_cli.errors import ConfigError, DataError

GROUPS = ("dataset", "encoder", "decoder", "posterior", "prior", "likelihood", "objective")
PREFIX = "object:"  # before the class's path in the `_target_` of such a part

_passed: ContextVar[Mapping[str, Any]] = ContextVar("passed", default={})  # noqa: B039, which is never changed


@contextmanager
def passing(parts: Mapping[str, Any]) -> Iterator[None]:
    """Let the parts be found inside the block, each under the name of its group."""
    token = _passed.set(parts)
    try:
        yield
    finally:
        _passed.reset(token)


def check_names(parts: Mapping[str, Any], others: tuple[str, ...], function: str) -> None:
    """Check that each keyword is a group whose part may be passed to a function, which takes others too.

    Raises:
        ConfigError: naming the first that is none.
    """
    for name, part in parts.items():
        if name not in GROUPS:
            near = get_close_matches(name, (*GROUPS, *others), n=1)
            hint = f"did you mean {near[0]}=?" if near else f"it takes {', '.join((*others, *GROUPS))}"
            if not near and function == "vae_cli.train":
                hint = f"a setting is a text, as in {function}('{name}={part}')"
            raise ConfigError(f"{function} has no keyword {name}: {hint}")


def node(part: Any) -> dict[str, Any]:
    """Return what a config says of a part."""
    cls = part if inspect.isclass(part) else type(part)
    binarize = getattr(part, "binarize", "none")  # of a data set, for examples that are given to the model later
    named = {"binarize": binarize} if isinstance(binarize, str) and binarize != "none" else {}
    return {"_target_": f"{PREFIX}{cls.__module__}.{cls.__qualname__}", **named}


def is_own(target: Any) -> bool:
    """Return whether a `_target_` stands for a part that was passed."""
    return str(target).startswith(PREFIX)


def find(group: str, target: Any) -> Any:
    """Return the part that was passed for a group.

    Raises:
        ConfigError: if none was, or one of another class than the `_target_` names.
    """
    path = str(target).removeprefix(PREFIX)
    name = path.rpartition(".")[2]
    part = _passed.get().get(group)
    if part is None and group == "dataset":
        raise DataError(
            "the run was trained on data that were passed in Python: name data with dataset.path= or input= where a "
            "command takes them, or go on with vae_cli.train(resume=…, dataset=…)"
        )
    if part is None:
        raise ConfigError(
            f"{group}: it was passed in Python, of the class {path}; pass it again, as vae_cli.load(…, {group}=…) or "
            f"vae_cli.train(resume=…, {group}=…)"
        )
    cls = part if inspect.isclass(part) else type(part)
    if cls.__name__ != name:
        raise ConfigError(f"{group}: the run was trained with a {name} and not a {cls.__name__}; pass the former")
    return part


def check_asked_for(config: Mapping[str, Any]) -> None:
    """Check that a stored config asks for each part that is passed.

    Raises:
        ConfigError: naming the first that it does not ask for.
    """
    for group in _passed.get():
        if not is_own(target := target_of(config, group)):
            raise ConfigError(f"{group}: the run was trained with {target}, which needs no object; leave {group}= out")


def check(config: Mapping[str, Any]) -> None:
    """Check that the parts which are passed are those that a stored config asks for, before anything is written.

    Raises:
        ConfigError, DataError: naming the first that is missing or is not asked for.
    """
    check_asked_for(config)
    for group in GROUPS:
        if is_own(target := target_of(config, group)):
            find(group, target)


def target_of(config: Mapping[str, Any], group: str) -> Any:
    """Return the `_target_` of a group's node; None where there is none."""
    node = config.get(group)
    return node.get("_target_") if isinstance(node, Mapping) else None
