"""The help pages, made from the files of `conf/`: a page that is read in a minute, and one for every group."""

import re
import textwrap
from collections.abc import Sequence
from difflib import get_close_matches

from vae_cli.build.options import Key, first_comment, general_options, groups, keys, options
from vae_cli.errors import ConfigError

DESCRIPTION = {
    "train": "trains a variational autoencoder, measures it on held-out data and writes a run directory.",
    "sample": "draws new images or rows from a trained variational autoencoder.",
    "reconstruct": "passes images or rows through a trained variational autoencoder.",
    "encode": "writes the latent codes of images or rows.",
    "evaluate": "measures a trained variational autoencoder: log-likelihood, bound, reconstructions, latent codes.",
    "export": "writes a trained model for other programs (ONNX, torch.export) or uploads it for other people.",
    "explore": "opens a page on this machine to move through a trained model's latent space by hand.",
    "compare": "shows many runs side by side: a table, comparison.csv and comparison.html.",
}
EXAMPLES = {
    "train": (
        "vae-train dataset=mnist latent_dim=16",
        "vae-train dataset=folder dataset.path=photos encoder=conv decoder=conv hydra.run.dir=runs/mine",
        "vae-train dataset=table dataset.path=people.csv dataset.label=income",
        "vae-train resume=runs/mine",
        "vae-train -m latent_dim=2,8,16 optimizer=adam,sgd sweep=runs/sizes",
    ),
    "sample": (
        "vae-sample checkpoint=outputs/mnist/RUN n=64 seed=0",
        "vae-sample checkpoint=best.safetensors format=png output=digits temperature=0.8",
        "vae-sample checkpoint=best.safetensors n=100000 format=npz draw=true",
        "vae-sample checkpoint=best.safetensors mode=interpolate 'between=[3,17]'",
        "vae-sample checkpoint=outputs/mnist/LADDER mode=levels",
    ),
    "reconstruct": (
        "vae-reconstruct checkpoint=outputs/mnist/RUN",
        "vae-reconstruct checkpoint=best.safetensors input=photos format=png output=rebuilt",
        "vae-reconstruct checkpoint=runs/people input=people.csv output=filled.csv",
    ),
    "encode": (
        "vae-encode checkpoint=outputs/mnist/RUN",
        "vae-encode checkpoint=best.safetensors input=photos output=codes.npz",
    ),
    "evaluate": (
        "vae-evaluate checkpoint=outputs/mnist/RUN",
        "vae-evaluate checkpoint=best.safetensors limit=1000 num_importance_samples=5000",
        "vae-evaluate checkpoint=best.safetensors dataset.path=other.npz output=other.json",
        "vae-evaluate checkpoint=outputs/mnist/RUN generation=true num_importance_samples=1",
        "vae-evaluate checkpoint=runs/people rows=rows.csv",
        "vae-evaluate checkpoint=runs/sprites disentanglement=true",
    ),
    "export": (
        "vae-export checkpoint=outputs/mnist/RUN",
        "vae-export checkpoint=best.safetensors format=onnx quantize=int8 output=small",
        "vae-export checkpoint=outputs/mnist/RUN format=hub repo=owner/name license=mit private=false",
    ),
    "explore": (
        "vae-explore checkpoint=outputs/mnist/RUN",
        "vae-explore checkpoint=best.safetensors port=8000 open=false",
    ),
    "compare": (
        "vae-compare outputs/sweeps/SWEEP",
        "vae-compare runs/a runs/b 'outputs/mnist/*' metric=log_likelihood output=comparison",
    ),
}
# The keys that people set, on the first page of vae-train; `--help keys` and `--help GROUP` show the others.
USUAL_KEYS = (
    *("latent_dim", "mc_samples", "batch_size", "epochs", "seed", "device", "precision", "compile", "data_dir"),
    *("resume", "checkpoint_every", "sample_every", "ema_decay", "early_stopping"),
)
USUAL_KEYS_INSIDE = (
    ("dataset.path", "folder"),
    ("dataset.image_size", "folder"),
    ("dataset.binarize", "mnist"),
    ("encoder.hidden", "mlp"),
    ("encoder.channels", "conv"),
    ("objective.beta", "elbo"),
    ("optimizer.lr", "adam"),
)
DIRECTORIES = [
    ("hydra.run.dir=DIR", "the run directory; default outputs/<dataset>/<date_time>"),
    ("sweep=DIR", "with -m: the sweep's directory; default outputs/sweeps/<date_time>"),
]
FLAGS = {
    "--help": "this page",
    "--help TOPIC": "{topics}",
    "--version": "the version",
    "--cfg job": "print the settings instead of running; --resolve fills in interpolations",
    "-m, --multirun": "a sweep: one run for every combination of comma-separated values",
    "--config-dir DIR": "more option files of your own, such as DIR/experiment/mine.yaml",
    "--config-name NAME": "another primary file than {command}",
    "--info, --hydra-help": "what Hydra knows, and its own settings (hydra.*)",
}
WIDTH = 118

Row = tuple[str, str]


def help_text(command: str, words: Sequence[str] = ()) -> str:
    """Return the help page of `vae-<command>` that the words of its command line ask for.

    `--help GROUP` or `--help=GROUP` is the page of a group, `--help keys` of all top-level keys, `--help sweep` of
    sweeps; any other line has the first page.

    Raises:
        ConfigError: for a topic that there is none of, with the nearest one.
    """
    topics = [*groups(command), "keys", *(["sweep"] if command == "train" else [])]
    topic = _topic(words)
    if topic is None:
        return _first_page(command, topics)
    if topic not in topics:
        near = get_close_matches(topic, topics, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(topics)}"
        raise ConfigError(f"--help {topic}: {hint}")
    if topic == "keys":
        directories = DIRECTORIES if command == "train" else []
        return _section("keys, each with its default", _key_rows("", keys(command)) + directories)
    return _sweep_page() if topic == "sweep" else _group_page(topic, groups(command)[topic])


def _topic(words: Sequence[str]) -> str | None:
    for word, following in zip(words, [*words[1:], ""]):
        if word.startswith("--help="):
            return word.removeprefix("--help=")
        if word in ("--help", "-h"):
            return None if following.startswith("-") or "=" in following else following or None
    return None


def _first_page(command: str, topics: list[str]) -> str:
    program, has_groups = f"vae-{command}", bool(groups(command))
    usage = [program, *(["DIR ..."] if command == "compare" else []), *(["GROUP=OPTION ..."] if has_groups else [])]
    parts = [
        f"{program} {DESCRIPTION[command]}",
        f"usage: {' '.join(usage)} KEY=VALUE ... FLAG ...",
        "\n".join(["examples:", *(f"  {example}" for example in EXAMPLES[command])]),
    ]
    if has_groups:
        rows = []
        for group, default in groups(command).items():
            others = [name for name in general_options(group) if name != default]
            text = (
                ", ".join(others)
                if group != "experiment"
                else "a preset of a paper, such as burda_vae; --help experiment lists them"
            )
            rows.append((f"{group}={default}", text))
        parts.append(_section("groups, each with its default and the other options", rows))
    rows = _key_rows("", [key for key in keys(command) if command != "train" or key.name in USUAL_KEYS])
    if command == "train":
        rows += DIRECTORIES
        for path, option in USUAL_KEYS_INSIDE:
            group, _, name = path.partition(".")
            [key] = [key for key in keys(f"{group}/{option}") if key.name == name]
            only = "" if option == groups(command)[group] else f"({group}={option}) "
            rows.append((f"{path}={key.default}", only + key.comment))
    parts.append(_section("keys, each with its default" if command != "train" else "the usual keys", rows))
    topic_text = f"more on {', '.join(topics[:-1])} or {topics[-1]}" if len(topics) > 1 else "all of its keys"
    flags = [
        (flag, text.format(command=command, topics=topic_text))
        for flag, text in FLAGS.items()
        if command == "train" or flag not in ("-m, --multirun", "--help TOPIC")
    ]
    return "\n\n".join([*parts, _section("flags, anywhere on the line", flags)])


def _group_page(group: str, default: str) -> str:
    """Return a group's options, each with its keys; of presets their first lines alone."""
    title = f"options of {group}, by default {group}={default}"
    if group == "experiment":
        return _section(title, [(f"{group}={name}", first_comment(f"{group}/{name}")) for name in options(group)])
    parts = [f"{title}:"]
    for name in general_options(group):
        rows = _key_rows(f"  {group}.", keys(f"{group}/{name}"))
        parts.append("\n".join(_columns([(f"{group}={name}", first_comment(f"{group}/{name}")), *rows])))
    if of_presets := [name for name in options(group) if name not in general_options(group)]:
        parts.append(f"Presets (--help experiment) use besides: {', '.join(of_presets)}.")
    return "\n\n".join(parts)


def _sweep_page() -> str:
    hydra_groups = ("hydra/sweeper", "hydra/launcher")
    rows = [(f"{group}={name}", first_comment(f"{group}/{name}")) for group in hydra_groups for name in options(group)]
    search = _key_rows("hydra.sweeper.", keys("hydra/sweeper/optuna"))
    examples = (
        "vae-train -m latent_dim=2,8,16 optimizer=adam,sgd sweep=runs/sizes hydra/launcher=cores",
        "vae-train -m hydra/sweeper=optuna 'latent_dim=int(interval(2,64))' encoder=mlp,conv sweep=runs/search",
    )
    return "\n\n".join(
        [
            "\n".join(["examples:", *(f"  {example}" for example in examples)]),
            _section("how jobs are chosen and where they run", rows),
            _section("keys of a sweep, each with its default", _key_rows("", keys("sweep")) + DIRECTORIES[1:]),
            _section("keys of a search (hydra/sweeper=optuna)", search),
        ]
    )


def _key_rows(prefix: str, of_file: Sequence[Key]) -> list[Row]:
    defaults = [re.sub(r"\$\{oc\.env:(\w+),null\}", r"$\1", key.default) for key in of_file]
    return [(f"{prefix}{key.name}={default}", key.comment) for key, default in zip(of_file, defaults)]


def _section(title: str, rows: Sequence[Row]) -> str:
    return "\n".join([f"{title}:", *_columns(rows)])


def _columns(rows: Sequence[Row]) -> list[str]:
    """Return rows in two columns, the second one wrapped."""
    width = min(38, max((len(left) for left, _ in rows), default=0))
    lines: list[str] = []
    for left, right in rows:
        first, *others = textwrap.wrap(right, WIDTH - width - 4, break_on_hyphens=False) or [""]
        lines.append(f"  {left:<{width}}  {first}".rstrip())
        lines += [" " * (width + 4) + line for line in others]
    return lines
