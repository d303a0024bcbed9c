"""`python -m vae_cli train ...`: the commands without their console scripts."""

import sys

from vae_cli import cli

_COMMANDS = {
    "train": cli.train,
    "sample": cli.sample,
    "evaluate": cli.evaluate,
    "reconstruct": cli.reconstruct,
    "encode": cli.encode,
    "compare": cli.compare,
}


def main() -> None:
    """Run the command that the first argument names, with the arguments after it."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name not in _COMMANDS:
        print(f"usage: python -m vae_cli {{{','.join(_COMMANDS)}}} ...", file=sys.stderr)
        sys.exit(0 if name in ("-h", "--help") else 1)
    _COMMANDS[name](rest)


if __name__ == "__main__":
    main()
