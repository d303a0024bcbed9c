"""Checkpoints on the Hugging Face Hub: `hf://owner/name` or `hf://owner/name@revision`."""

from __future__ import annotations

import errno
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_cli.errors import CheckpointError, UserError, describe, missing_extra

WEIGHTS = "model.safetensors"  # the file that vae-export uploads
FILES = (  # and those of a run uploaded by hand
    WEIGHTS,
    *("best.safetensors", "checkpoints/best.safetensors"),
    *("last.safetensors", "checkpoints/last.safetensors"),
)
REVISION = "main"
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
_ADDRESS = re.compile(r"hf:/{1,2}(?P<repo>[\w.-]+/[\w.-]+?)(?:@(?P<revision>[\w./-]+))?/?")  # a Path drops a slash


def is_address(path: str | Path) -> bool:
    """Return whether a path is an address on the Hub."""
    return str(path).startswith("hf:/")


def download(path: str | Path) -> Path:
    """Return the checkpoint of a repository in the Hub's own cache, downloaded unless it is there.

    Of a revision that is a commit nothing is asked of the Hub once its file is there. Without a connection the first of
    `FILES` that is there is returned.

    Raises:
        CheckpointError: if the address is none, or there is no such repository, revision or file, or no connection.
        ConfigError: if huggingface_hub is not installed.
    """
    match = _ADDRESS.fullmatch(str(path))
    if match is None:
        raise CheckpointError(f"checkpoint={path}: write hf://owner/name, or hf://owner/name@revision")
    repo, revision = match["repo"], match["revision"] or REVISION
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as error:
        raise missing_extra(f"checkpoint={path}", error, "hub") from error
    with errors_name(repo, f"checkpoint={path}", CheckpointError, revision):
        file = _first_file(repo, revision, f"checkpoint={path}")
    if file is None:
        raise CheckpointError(f"checkpoint={path}: the repository has no {WEIGHTS}: it holds no model of vae-export")
    return file


def _first_file(repo: str, revision: str, setting: str) -> Path | None:
    """Return the first of `FILES` that a repository has; None if it has none.

    Raises:
        CheckpointError: without a connection, if none of them is in the cache.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError

    unreachable: LocalEntryNotFoundError | None = None
    for file in FILES:
        cached = try_to_load_from_cache(repo, file, revision=revision) if _COMMIT.fullmatch(revision) else None
        if cached is not None:  # the file, or the knowledge that this commit has none of that name
            if isinstance(cached, str):
                return Path(cached)
            continue
        try:
            is_offline = unreachable is not None  # no second wait for a connection
            return Path(hf_hub_download(repo, file, revision=revision, local_files_only=is_offline))
        except RemoteEntryNotFoundError:
            continue
        except LocalEntryNotFoundError as error:
            unreachable = unreachable or error
    if unreachable is None:
        return None
    raise CheckpointError(
        f"{setting}: the Hub cannot be reached ({_connection(unreachable.__cause__ or unreachable)}), and no model of "
        "that revision is in the cache; connect, or name a file"
    ) from unreachable


@contextmanager
def errors_name(
    repo: str, setting: str, family: type[UserError], revision: str = REVISION, doing: str = "read"
) -> Iterator[None]:
    """Turn what the Hub's library raises into one line that begins with a setting.

    Args:
        repo: owner/name.
        setting: as it was typed.
        family: of the error.
        revision: what is asked for.
        doing: what was tried, `read` or `write`.
    """
    from huggingface_hub import errors

    logger = logging.getLogger("huggingface_hub")  # which reports every attempt
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise family(f"{setting}: {repo} asks for its conditions to be accepted on its page first; {LOGIN}") from error
    except errors.RepositoryNotFoundError as error:
        raise family(f"{setting}: there is no {repo}, or it is private: check the name, or {LOGIN}") from error
    except errors.RevisionNotFoundError as error:
        raise family(f"{setting}: {repo} has no revision {revision}") from error
    except errors.HFValidationError as error:
        raise family(f"{setting}: {describe(error)}") from error
    except errors.LocalTokenNotFoundError as error:
        raise family(f"{setting}: nobody is logged in; {LOGIN}") from error
    except errors.HfHubHTTPError as error:
        raise family(f"{setting}: {_status(error, doing)}") from error
    except (errors.OfflineModeIsEnabled, errors.HTTPError, OSError) as error:
        words = f"the Hub cannot be reached ({_connection(error)})"
        if isinstance(error, OSError) and (error.filename is not None or error.errno in _FULL_DISK):
            words = _disk(error)
        raise family(f"{setting}: {words}") from error
    except ValueError as error:  # of a model card's head
        raise family(f"{setting}: {describe(error)}") from error
    finally:
        logger.setLevel(level)


def _connection(error: BaseException) -> str:
    """Return why there is no connection."""
    text = describe(error)
    return "HF_HUB_OFFLINE is set" if "offline mode is enabled" in text else text


def _disk(error: OSError) -> str:
    """Return what is wrong with a file here."""
    place = "a file here" if error.filename is None else error.filename
    return f"{place} cannot be read or written ({describe(error)}); HF_HOME names the folder of the Hub's cache"


def _status(error: Exception, doing: str) -> str:
    response = getattr(error, "response", None)
    code = getattr(response, "status_code", None)
    if code == 401:
        return f"the Hub does not know who asks (HTTP status 401); {LOGIN}"
    if code == 403:
        return f"you may not {doing} there (HTTP status 403): log in as somebody who may, or check the token's rights"
    return f"the Hub answers with HTTP status {code}: {describe(getattr(error, 'server_message', None) or error)}"
