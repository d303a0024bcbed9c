"""The overrides of a command line: reading them, checking their choices, and naming the one at fault."""

import re
from collections.abc import Iterator
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, OverrideType
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_cli.build import options
from vae_cli.build.settings import check_beside_resume
from vae_cli.config.validation import show, unknown
from vae_cli.errors import ConfigError, first_line

# The extra and the modules that options of Hydra's own groups need.
NEEDED = {
    ("hydra/launcher", "cores"): ("sweep", ("joblib", "hydra_plugins.hydra_joblib_launcher")),
    ("hydra/launcher", "slurm"): ("slurm", ("submitit", "hydra_plugins.hydra_submitit_launcher")),
    ("hydra/launcher", "slurm_local"): ("slurm", ("submitit", "hydra_plugins.hydra_submitit_launcher")),
    ("hydra/launcher", "ray_cluster"): ("ray", ("ray", "hydra_plugins.hydra_ray_launcher")),
    ("hydra/sweeper", "optuna"): ("sweep", ("optuna",)),
}
_NOISE = re.compile(
    r"\n\s*(See https?://|(Config )?[Ss]earch path:|full_key:|reference_type=|object_type=).*", re.DOTALL
)
_PRESET = re.compile(r"In '(\w+)/(.+?)': Could not override '[\w/]+@\1\.")  # without a package


def parse(texts: list[str]) -> list[Override]:
    """Return the overrides as Hydra's grammar reads them.

    Raises:
        ConfigError: saying what is malformed about the first that cannot be read.
    """
    parser = OverridesParser.create()
    parsed = []
    for text in texts:
        try:
            parsed.append(parser.parse_override(text))
        except Exception as error:
            raise ConfigError(_malformed(text, error)) from error
        if not parsed[-1].key_or_group:
            raise ConfigError(f"{text}: there is no key before the =; write KEY=VALUE")
    return parsed


def _malformed(text: str, error: Exception) -> str:
    key, equals, value = text.partition("=")
    if not equals:
        return f"{show(text)} is no setting: write KEY=VALUE"
    if value.endswith(","):
        return f"{text}: a value is missing behind the last comma; write values without spaces: {key}=2,8"
    if not re.fullmatch(r"[~+]{0,2}[\w$.@/-]+", key):
        return f"{text}: cannot read the key {key!r}; write KEY=VALUE, without spaces around the ="
    pairs = [f"{a}{b}" for a, b in ("[]", "{}", "()") if value.count(a) != value.count(b)]
    if pairs or value.count("'") % 2 or value.count('"') % 2:
        what = f"{pairs[0]} do" if pairs else "quotes do"
        return f"{text}: {what} not match; close them, or quote the value twice: \"{key}='...'\""
    words = re.split(r",?\s+(?=[~+]{0,2}[\w$.@/-]+=)", text)
    if len(words) > 1:
        quoted = " and ".join(f'"{word}"' for word in words)
        return f"{text}: these are several settings; give each by itself, {quoted}"
    why = first_line(error).removeprefix("HydraException while evaluating ")
    return f"{text}: cannot read the value ({why}); if it is text, quote it twice: \"{key}='...'\""


def beside_resume(texts: list[str]) -> list[str]:
    """Return the overrides of a command line; beside `resume=` those that may be given there.

    `dataset.path` is then added to the composed config: the stored data set may have one, the default one has none.

    Raises:
        ConfigError: for a key that may not be given beside `resume=`.
    """
    parsed = parse(texts)
    if not any(override.key_or_group == "resume" and override.value() is not None for override in parsed):
        return texts
    check_beside_resume(override.key_or_group for override in parsed)
    return [f"++{text}" if text.startswith("dataset.path=") else text for text in texts]


def check_sweep(override: Override, multirun: bool) -> None:
    """Check that several values are given only under `-m`, and only to keys of the command."""
    if not override.is_sweep_override():
        return
    text, key = override.input_line, override.key_or_group
    if not multirun:
        raise ConfigError(f"{text}: several values make a sweep, add -m; a list is written {key}=[...]")
    if override.is_hydra_override():
        raise ConfigError(f"{text}: Hydra's own settings cannot be swept, give one value")
    if key in options.sweep_keys():
        raise ConfigError(f"{text}: {key} is the whole sweep's, give one value")


def check_no_sweep_keys(overrides: list[Override]) -> None:
    """Check that no key is overridden that only a sweep makes use of."""
    hydras = re.compile(r"hydra[/.](sweeper|launcher)(\..*)?")
    for override in overrides:
        if override.key_or_group in options.sweep_keys() or hydras.fullmatch(override.key_or_group):
            raise ConfigError(f"{override.input_line} is for a sweep: add -m")


def check_choice(override: Override, loader: ConfigLoader, command: str) -> None:
    """Check the options that an override chooses for a group of the command or of Hydra."""
    group, choices = override.key_or_group, options.groups(command)
    if group in options.groups("train") and group not in choices:
        has_path = group in [key.name for key in options.keys(command)]
        others = "; dataset.path= names other data" if has_path else ""
        raise ConfigError(f"{override.input_line}: vae-{command} takes the {group} of the checkpoint{others}")
    if group not in choices and not group.startswith("hydra/"):
        return
    if override.is_delete() or isinstance(override.value(), dict):
        return
    if group in choices and (override.package or override.type != OverrideType.CHANGE):
        raise ConfigError(f"{override.input_line}: {group} is there already; choose with {group}=OPTION")
    names = loader.get_group_options(group, ObjectType.CONFIG)
    if not names:
        raise ConfigError(unknown(group, [f"hydra/{name}" for name in loader.list_groups("hydra")]))
    values: list[Any] = [Override._convert_value(value) for value in _values(override, loader)]
    wrong = [name for name in values if not isinstance(name, str) or name not in names]
    if len(wrong) == len(values):  # of a sweep, a job with a wrong choice fails alone
        near = get_close_matches(str(wrong[0]), names, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        of_presets = {*options.options(group)} - {*options.general_options(group)}
        general = ", ".join(name for name in names if name not in of_presets)
        raise ConfigError(f"{group}={show(wrong[0])}: {hint}{group} is one of {general}")
    # What one of this package's launchers or sweepers is made of has to be installed.
    extra, modules = NEEDED.get((group, values[0]), ("", ()))
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise ConfigError(f"{group}={values[0]} needs {' and '.join(missing)}: pip install 'vae-cli[{extra}]'")


def _values(override: Override, loader: ConfigLoader) -> list[Any]:
    """Return the values of an override: all of a sweep as it was parsed, if they can be counted, else the first."""
    value = override.value()
    if not override.is_sweep_override():
        return [value]
    if isinstance(value, IntervalSweep):
        return [value.start]
    override.config_loader = loader
    values: list[Any] = list(override.sweep_iterator())
    if not values:
        raise ConfigError(f"{override.input_line}: this sweep has no values")
    return values


def _with(override: Override, value: Any) -> str:
    return f"{override.get_key_element()}={Override._get_value_element_as_str(value)}"


def combinations(overrides: list[Override], loader: ConfigLoader) -> list[list[str]]:
    """Return the overrides of every job of a sweep.

    Raises:
        ConfigError: for a range of numbers that cannot be counted.
    """
    for override in overrides:
        override.config_loader = loader
        if override.is_sweep_override() and isinstance(override.value(), IntervalSweep):
            raise ConfigError(
                f"{override.input_line}: an interval has no end of values; search it with hydra/sweeper=optuna, or "
                "give values: 1,2,3 or range(1,9,2)"
            )
    return [list(job) for batch in BasicSweeper.split_arguments(of_jobs(overrides), None) for job in batch]


def of_jobs(overrides: list[Override]) -> list[Override]:
    """Return the overrides that a sweep's jobs get: those of the sweep as a whole are left out."""
    return [override for override in overrides if override.key_or_group not in options.sweep_keys()]


def sample_jobs(overrides: list[Override], loader: ConfigLoader) -> Iterator[list[str]]:
    """Yield jobs of a sweep whose keys stand for all: the first, and one for every other option of a swept group."""
    first = [_with(o, _values(o, loader)[0]) if o.is_sweep_override() else str(o.input_line) for o in overrides]
    yield first
    for place, override in enumerate(overrides):
        if override.is_sweep_override() and override.key_or_group in options.groups("train"):
            for value in _values(override, loader)[1:]:
                yield [*first[:place], _with(override, value), *first[place + 1 :]]


def follow_swept_groups(overrides: list[Override]) -> list[str]:
    """Return the overrides of a sweep, those of keys inside a swept group made sweeps of one value.

    Hydra composes a sweep once with every swept group at its default, which may lack the key.
    """
    swept = {override.key_or_group for override in overrides if override.is_sweep_override()}
    texts = []
    for override in overrides:
        is_inside = override.key_or_group.partition(".")[0] in swept
        if is_inside and override.type == OverrideType.CHANGE and not override.is_sweep_override():
            texts.append(f"{override.key_or_group}=choice({override.get_value_element_as_str()})")
        else:
            texts.append(str(override.input_line))
    return texts


def check_deleted(overrides: list[Override], config: DictConfig, command: str) -> None:
    """Check that no key or group which a command needs was deleted with `~`."""
    for override in overrides:
        key = override.key_or_group
        if override.is_delete() and key in options.needed(command) and key not in list(config.keys()):
            raise ConfigError(f"{override.input_line}: vae-{command} needs {key}, it cannot be deleted")


def explain(error: Exception, texts: list[str], loader: ConfigLoader, command: str, config_name: str) -> str:
    """Return what Hydra or OmegaConf raised while composing as one line about the override at fault."""
    if message := wrong_override(texts, loader, command, config_name):
        return message
    if "Cannot find primary config" in str(error):
        return f"--config-name {config_name}: there is no {config_name}.yaml in the config folders"
    if nested := _PRESET.match(str(error)):
        return f"{nested[1]}={nested[2]}: begin its option file with the line # @package _global_"
    causes = [error, *([error.__cause__] if isinstance(error.__cause__, OmegaConfBaseException) else [])]
    messages = (" ".join(_NOISE.sub("", str(each)).split()) for each in causes)
    return "; ".join(filter(None, messages)) or type(error).__name__


def wrong_override(texts: list[str], loader: ConfigLoader, command: str, config_name: str) -> str | None:
    """Return the sentence about the first override whose key is not in the config that the chosen options make."""
    overrides = parse(texts)
    groups = {*options.groups(command), *(o.key_or_group for o in overrides if o.key_or_group.startswith("hydra/"))}
    chosen = [o for o in overrides if o.key_or_group in groups and not o.is_delete()]
    choices = [_with(o, _values(o, loader)[0]) for o in chosen if not isinstance(o.value(), dict)]
    try:
        base = loader.load_configuration(config_name, choices, RunMode.RUN)
    except Exception:
        return None
    own_classes = {o.key_or_group.partition(".")[0] for o in overrides if o.key_or_group.endswith("._target_")}
    for override in overrides:
        key, group = override.key_or_group, override.key_or_group.partition(".")[0]
        if key.startswith("hydra/") or key in options.groups(command):
            continue
        exists, adds = has(base, key), override.is_add() or override.is_force_add()
        if override.is_add() and exists:
            return f"{override.input_line}: {key} is there already; drop the +"
        if not exists and not adds and group in own_classes:
            return f"unknown key {key}: one that only your own class has is written +{override.input_line}"
        if not exists and not adds:
            return _key_of_another_option(key, base) or _unknown_key(key, base, command)
    return None


def _unknown_key(key: str, base: DictConfig, command: str) -> str:
    group = key.partition(".")[0]
    in_group = options.options(group) if group in options.groups(command) else []
    inside = [f"{group}.{each.name}" for option in in_group for each in options.keys(f"{group}/{option}")]
    return unknown(key, dotted_keys(base, key.startswith("hydra")) + inside)


def _key_of_another_option(key: str, base: DictConfig) -> str | None:
    """Return the sentence about a key that other options of its group have than the chosen one."""
    path, _, name = key.rpartition(".")
    group = path.replace(".", "/")
    names = options.general_options(group) if group else []
    having = [option for option in names if name in [each.name for each in options.keys(f"{group}/{option}")]]
    if not having:
        return None
    if group.startswith("hydra/"):
        return f"unknown key {key}: add {group}={having[0]}, which has it"
    chosen = base.hydra.runtime.choices.get(group)
    if chosen is None:  # the command takes the checkpoint's
        return None
    verb, others = "has" if len(having) == 1 else "have", f" and {group}=".join(having)
    return f"unknown key {key}: {group}={chosen} has no {name}; {group}={others} {verb} it"


def preset(overrides: list[Override], command: str) -> str:
    """Return the text of a preset of `experiment=` that sets what overrides set.

    A preset among them becomes part of its defaults list.
    """
    choices: list[str] = []
    inside = OmegaConf.create({})
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if key == "experiment":
            choices.insert(0, f"  - {value}\n")
        elif key in options.groups(command) and not isinstance(value, dict):
            choices.append(f"  - override /{key}: {value}\n")
        elif not override.is_delete():
            OmegaConf.update(inside, key, value, force_add=True)
    defaults = f"defaults:\n{''.join(choices)}  - _self_\n" if choices else ""
    return defaults + (OmegaConf.to_yaml(inside) if len(inside) else "")


def has(config: DictConfig, key: str) -> bool:
    """Return whether a config has a dotted key, whatever its value."""
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if isinstance(node, ListConfig):
        return last.isdigit() and int(last) < len(node)
    return isinstance(node, DictConfig) and last in list(node.keys())


def dotted_keys(config: DictConfig, of_hydra: bool = False) -> list[str]:
    """Return every dotted key of a config, or of Hydra's own part of it."""

    def dotted(node: dict[Any, Any], prefix: str) -> Iterator[str]:
        for key, value in node.items():
            yield f"{prefix}{key}"
            if isinstance(value, dict):
                yield from dotted(value, f"{prefix}{key}.")

    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return list(dotted({key: value for key, value in plain.items() if (key == "hydra") == of_hydra}, ""))


def unresolved(config: DictConfig) -> dict[str, Any]:
    """Return a config without Hydra's own node, its values as they were written."""
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items() if key != "hydra"}


def keys(texts: list[str]) -> frozenset[str]:
    """Return the dotted keys and groups that overrides set."""
    return frozenset(override.key_or_group for override in parse(texts) if not override.is_delete())
