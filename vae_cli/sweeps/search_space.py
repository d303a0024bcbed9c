"""The space of a search: Hydra's choice, range, interval and tag(log, …) as Optuna's distributions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep

from vae_cli.build import settings
from vae_cli.errors import ConfigError, describe

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

LARGEST_GRID = 100_000  # values of one key


def split_overrides(overrides: Sequence[Override]) -> tuple[dict[str, BaseDistribution], list[str]]:
    """Return where each searched key takes its values, and the overrides that all trials share.

    Raises:
        ConfigError: for a key that cannot be searched so, or if there is none to search.
    """
    space, fixed = {}, []
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            fixed.append(str(override.input_line))
        elif override.is_discrete_sweep() and len(values := list(override.sweep_string_iterator())) == 1:
            fixed.append(f"{key}={values[0]}")
        else:
            space[key] = distribution(override)
    if not space:
        raise ConfigError(
            "a search needs keys with several values, such as latent_dim=2,8 optimizer.lr=interval(1e-4,1e-2)"
        )
    return space, fixed


def distribution(override: Override) -> BaseDistribution:
    """Return the distribution of a swept key's values.

    Raises:
        ConfigError: naming what is wrong with its bounds.
    """
    from optuna.distributions import CategoricalDistribution

    sweep: Any = override.value()
    is_log = "log" in getattr(sweep, "tags", ())
    try:
        if isinstance(sweep, IntervalSweep):
            return _interval(override.get_key_element(), sweep, is_log)
        if isinstance(sweep, RangeSweep) and not sweep.shuffle:
            return _range(sweep, is_log)
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {describe(error)}") from error


def _interval(key: str, sweep: IntervalSweep, is_log: bool) -> BaseDistribution:
    """Return the numbers between two, both included: integers where both are integers by type."""
    from optuna.distributions import FloatDistribution, IntDistribution

    low, high = sweep.start, sweep.end
    assert low is not None and high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=is_log)
    inside = low + (high - low) / 3
    if not settings.is_accepted(key, inside) and settings.is_accepted(key, int(inside)):
        raise ConfigError(f"{key}: it takes whole numbers, search {key}=int(interval({low:g},{high:g}))")
    return FloatDistribution(low, high, log=is_log)


def _range(sweep: RangeSweep, is_log: bool) -> BaseDistribution:
    """Return the numbers of Hydra's range, which ends before its `stop`."""
    from optuna.distributions import FloatDistribution, IntDistribution

    start, stop, step = sweep.start, sweep.stop, sweep.step
    assert start is not None and stop is not None
    last = start + (max(1, math.ceil((stop - start) / step)) - 1) * step
    if isinstance(start, int) and isinstance(last, int) and isinstance(step, int):
        return IntDistribution(start, last, log=is_log, step=1 if is_log else step)
    return FloatDistribution(start, last, log=is_log, step=None if is_log else step)


def grid(space: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Return all values of each key.

    Raises:
        ConfigError: for a key whose values cannot be counted.
    """
    from optuna.distributions import CategoricalDistribution

    values: dict[str, list[Any]] = {}
    for key, where in space.items():
        if isinstance(where, CategoricalDistribution):
            values[key] = list(where.choices)
        elif where.step is None or where.log:
            raise ConfigError(f"{key}: a grid needs values that can be counted, such as 1,2,3 or range(1,9,2)")
        else:
            count = round((where.high - where.low) / where.step) + 1
            values[key] = [where.low + where.step * index for index in range(min(count, LARGEST_GRID))]
    return values


def contains(space: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
    """Return whether a trial's parameters, which anyone may have written into the study, are a point of the space."""
    if params.keys() != space.keys():
        return False
    try:
        return all(where._contains(where.to_internal_repr(params[key])) for key, where in space.items())
    except (ValueError, TypeError):
        return False
