"""Data sets whose files are found in `data_dir`, or downloaded to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Dataset
from vae_cli.data.download import RemoteFile, download
from vae_cli.errors import DataError, describe
from vae_cli.system.cache import cache_dir
from vae_cli.system.paths import expand

DELETE = "delete it to have it downloaded again"


class DownloadedDataset(Dataset):
    """A data set that is downloaded on first use.

    A subclass says where its files lie and come from. Archives are opened only if they have their checksums, and read
    without being unpacked.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: see `Dataset`.
    """

    subfolder: ClassVar[str] = "."  # of data_dir
    files: ClassVar[Sequence[RemoteFile]] = ()

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = None
    ) -> None:
        super().__init__(binarize, validation)
        self.data_dir = expand(data_dir) if data_dir else cache_dir()
        self.folder = self.data_dir / self.subfolder

    def require(self) -> None:
        """Download the files that are missing or broken.

        Raises:
            DataError: if `data_dir` cannot be read or written, or a file cannot be had; it says what was tried and
                what to do by hand.
        """
        download(self.name, self.folder, self.files)

    def digest(self, file: str) -> str:
        """Return the digest that one of the files must have."""
        return next(each.checksum for each in self.files if each.name == file).partition(":")[2]

    @contextmanager
    def reading(self, file: str) -> Iterator[None]:
        """Turn whatever a damaged archive raises, which is of many kinds, into the error that names its file."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            raise self.broken(file, error) from error

    def broken(self, file: str, error: BaseException | str) -> DataError:
        """Return the error about a file that has its checksum and cannot be read all the same."""
        return DataError(f"{self.folder / file} cannot be read ({describe(error)}); {DELETE}")


def exists(path: Path) -> bool:
    """Return whether there is such a file.

    Raises:
        DataError: if its directory cannot be read.
    """
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); set data_dir= to another directory") from error
