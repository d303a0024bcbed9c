"""The help pages, made from the files of `conf/`."""

from vae_cli.config.options import Key, _text, groups, keys, options

_DESCRIPTION = {
    "train": "trains a variational autoencoder, measures it on held-out images and writes a run directory.",
    "sample": "draws new images from a trained variational autoencoder.",
    "reconstruct": "passes images through a trained variational autoencoder.",
    "encode": "writes the latent codes of images.",
    "evaluate": "measures a trained variational autoencoder: log-likelihood, bound, reconstructions, latent codes.",
    "compare": "shows many runs side by side: a table, comparison.csv and comparison.html.",
}
_EXAMPLES = {
    "train": (
        "vae-train dataset=mnist latent_dim=16",
        "vae-train dataset=folder dataset.path=photos encoder=conv decoder=conv hydra.run.dir=runs/mine",
        "vae-train resume=runs/mine",
        "vae-train -m latent_dim=2,8,16 optimizer=adam,sgd sweep=runs/sizes hydra/launcher=cores",
        "vae-train -m hydra/sweeper=optuna 'latent_dim=int(interval(2,64))' encoder=mlp,conv sweep=runs/search",
    ),
    "sample": (
        "vae-sample checkpoint=outputs/mnist/RUN n=64 seed=0",
        "vae-sample checkpoint=best.pt format=png output=digits temperature=0.8",
        "vae-sample checkpoint=best.pt n=100000 format=npz draw=true",
        "vae-sample checkpoint=best.pt mode=interpolate between=[3,17]",
    ),
    "reconstruct": (
        "vae-reconstruct checkpoint=outputs/mnist/RUN",
        "vae-reconstruct checkpoint=best.pt input=photos format=png output=rebuilt",
    ),
    "encode": (
        "vae-encode checkpoint=outputs/mnist/RUN",
        "vae-encode checkpoint=best.pt input=photos output=codes.npz",
    ),
    "evaluate": (
        "vae-evaluate checkpoint=outputs/mnist/RUN",
        "vae-evaluate checkpoint=best.pt limit=1000 num_importance_samples=5000",
        "vae-evaluate checkpoint=best.pt dataset.path=other.npz output=other.json",
    ),
    "compare": (
        "vae-compare outputs/sweeps/SWEEP",
        "vae-compare runs/a runs/b 'outputs/mnist/*' metric=log_likelihood output=comparison",
    ),
}
_PLACES = {
    "hydra.run.dir": "the run directory; default outputs/<dataset>/<date_time>",
    "sweep": "with -m: the sweep's directory; default outputs/sweeps/<date_time>",
}
_FLAGS = {
    "-h, --help": "this page",
    "--version": "the version",
    "--cfg job": "print the settings instead of running; --resolve fills in interpolations",
    "-m, --multirun": "a sweep: one run for every combination of comma-separated values",
    "--config-dir DIR": "more option files of your own, e.g. DIR/experiment/mine.yaml",
    "--config-name NAME": "another primary file than {command}",
    "--info, --hydra-help": "what Hydra knows, and its own settings (hydra.*)",
}


def help_text(command: str) -> str:
    """The help page of `vae-<command>`, made from the files of `conf/`."""
    program = f"vae-{command}"
    chosen = groups(command)
    words = [program, "DIR ..." if command == "compare" else "", "[FLAG ...]", "[GROUP=OPTION ...]" if chosen else ""]
    parts = [
        f"{program} {_DESCRIPTION[command]}",
        f"usage: {' '.join(filter(None, words))} [KEY=VALUE ...]",
        _section("examples", _EXAMPLES[command]),
    ]
    if chosen:
        rows = [(f"{group}={name}", _others(group, name)) for group, name in chosen.items()]
        parts.append(_section("groups, each with its default and the other options", _columns(rows)))
    places = [(f"{key}=DIR", text) for key, text in _PLACES.items()] if command == "train" else []
    parts.append(_section("keys, each with its default", _columns(_rows("", keys(command)) + places)))
    inside = [row for group, name in chosen.items() for row in _option_rows(group, name)]
    if inside:
        parts.append(
            _section(
                "keys inside the groups; in brackets other options' defaults, or the options that alone have them",
                _columns(inside),
            )
        )
    if command == "train":
        parts.append(_section("with -m, how jobs are chosen and where they run", _columns(_sweep_rows())))
    parts.append(_section("flags, anywhere on the line", _columns(_flags(command))))
    return "\n\n".join(parts)


def _others(group: str, default: str) -> str:
    return ", ".join(name for name in options(group) if name != default)


def _option_rows(group: str, default: str) -> list[tuple[str, str]]:
    """The keys of a group's default option, then what other options have besides."""
    if default == "null":
        return []
    having: dict[str, list[tuple[str, Key]]] = {}
    for option in [default, *(name for name in options(group) if name != default)]:
        for key in keys(f"{group}/{option}"):
            having.setdefault(key.name, []).append((option, key))
    rows = []
    for (first, key), *others in having.values():
        unlike = [f"{option}: {other.default}" for option, other in others if other.default != key.default]
        alike = [option for option, other in others if other.default == key.default]
        shown = ", ".join(unlike if first == default else sorted([first, *alike, *unlike]))
        rows.append((f"{group}.{key.name}={key.default}", f"({shown}) {key.comment}" if shown else key.comment))
    return rows


def _sweep_rows() -> list[tuple[str, str]]:
    """Hydra's groups that this package has options for, each with its file's first line, and the keys of a search."""
    rows = []
    for group in ("hydra/sweeper", "hydra/launcher"):
        for option in options(group):
            first = _text(f"{group}/{option}").partition("\n")[0]
            rows.append((f"{group}={option}", first.removeprefix("# ")))
    return rows + _rows("hydra.sweeper.", keys("hydra/sweeper/optuna"))


def _rows(prefix: str, found: list[Key]) -> list[tuple[str, str]]:
    return [(f"{prefix}{key.name}={key.default}", key.comment) for key in found]


def _flags(command: str) -> list[tuple[str, str]]:
    sweeps = command == "train"
    shown = {flag: text for flag, text in _FLAGS.items() if sweeps or flag != "-m, --multirun"}
    return [(flag, text.format(command=command)) for flag, text in shown.items()]


def _columns(rows: list[tuple[str, str]]) -> list[str]:
    width = min(30, max(len(left) for left, _ in rows))
    return [f"{left:<{width}}  {right}".rstrip() for left, right in rows]


def _section(title: str, lines: list[str] | tuple[str, ...]) -> str:
    return "\n".join([f"{title}:", *(f"  {line}" for line in lines)])
