"""A model as a repository on the Hugging Face Hub."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

from vae_cli.build.trained import Trained
from vae_cli.errors import ConfigError, missing_extra
from vae_cli.exporting import weights
from vae_cli.exporting.card import card, run_of
from vae_cli.generation.pictures import sample_grid
from vae_cli.runs.config_file import to_yaml
from vae_cli.runs.hub import WEIGHTS, errors_name

SAMPLES = "samples.png"


def require() -> None:
    """Check that the library is here.

    Raises:
        ConfigError: with the command that installs it.
    """
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise missing_extra("format=hub", error, "hub") from error


def upload(repo: str, is_private: bool, files: dict[str, bytes | Path]) -> tuple[str, bool, str]:
    """Put files into a repository in one commit, and make it if need be.

    Args:
        repo: owner/name.
        is_private: whether only its owner sees it. Nothing is put into a repository that everybody sees if it should
            be private.
        files: contents, or paths here, by their names there.

    Returns:
        the address of its page, whether it is private, and the commit.

    Raises:
        ConfigError: in one line, for whatever the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    with errors_name(repo, f"repo={repo}", ConfigError, doing="write"):
        page = api.create_repo(repo, private=is_private, exist_ok=True)
        has_become_private = bool(api.model_info(repo).private)
        if is_private and not has_become_private:
            raise ConfigError(f"repo={repo} exists and everybody sees it: set private=false, or name another")
        added = [
            CommitOperationAdd(name, str(content) if isinstance(content, Path) else content)
            for name, content in files.items()
        ]
        commit = api.create_commit(repo, added, commit_message="Upload a model of vae_cli")
    return str(page), has_become_private, commit.oid


def publish(repo: str, is_private: bool, license: str | None, source: Path, trained: Trained) -> tuple[str, bool, str]:
    """Upload weights, config, samples and a model card, which has numbers of a run's own checkpoint; see `upload`."""
    picture = io.BytesIO()
    sample_grid(trained.model, seed=0, names=trained.facts.class_names).save(picture, format="PNG")
    with tempfile.TemporaryDirectory() as folder:
        weights.write(source, Path(folder) / WEIGHTS)
        files: dict[str, bytes | Path] = {
            WEIGHTS: Path(folder) / WEIGHTS,
            "config.yaml": to_yaml(weights.shareable(trained.settings)).encode(),
            SAMPLES: picture.getvalue(),
            "README.md": card(repo, license, trained, run_of(source), SAMPLES).encode(),
        }
        return upload(repo, is_private, files)
