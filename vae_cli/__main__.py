"""`python -m vae_cli train ...`: the commands without their console scripts."""

import sys

from vae_cli import cli
from vae_cli.build.options import COMMANDS


def main() -> None:
    """Run the command that the first argument names, with the arguments after it."""
    name, *rest = sys.argv[1:] or ["--help"]
    if name not in COMMANDS:
        print(f"usage: python -m vae_cli {{{','.join(COMMANDS)}}} ...", file=sys.stderr)
        sys.exit(0 if name in ("-h", "--help") else 1)
    getattr(cli, name)(rest)


if __name__ == "__main__":
    main()
