"""Data sets that come as archives with published checksums."""

from __future__ import annotations

import hashlib
import sys
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from vae_cli.data.base import Dataset
from vae_cli.data.download.fetch import fetch
from vae_cli.data.download.mirrors import archives
from vae_cli.data.images import CHUNK
from vae_cli.errors import DataError, describe
from vae_cli.system.cache import cache_dir


class Archived(Dataset):
    """A set whose archives lie where torchvision puts them, and are downloaded from where torchvision says.

    An archive is opened only if it has its checksum, and read without being unpacked; one that has not is
    downloaded anew.

    Args:
        data_dir: where the archives are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: see `Dataset`.
    """

    original: ClassVar[str]  # torchvision's class
    folder: ClassVar[str] = "."  # below data_dir
    sums: ClassVar[Mapping[str, str]]  # MD5 of each archive

    def __init__(self, data_dir: str | None = None, binarize: str = "none", validation: int | None = None) -> None:
        super().__init__(binarize, validation)
        self.data_dir = Path(data_dir).expanduser() if data_dir else cache_dir()

    @abstractmethod
    def address(self, original: Any, file: str) -> str:
        """Where an archive can be had, by torchvision's class: an address, or `gdrive:` and an identity there."""

    def path(self, file: str) -> Path:
        """Where an archive belongs."""
        return self.data_dir / self.folder / file

    def require(self) -> None:
        """See to it that every archive is there and whole.

        Raises:
            DataError: if `data_dir` cannot be read or written, or an archive cannot be had; it says what was tried
                and where to put it by hand.
        """
        missing = [file for file in self.sums if not self._is_whole(file)]
        if not missing:
            return
        sums = {file: self.sums[file] for file in missing}
        route = archives(self.original, self.address, sums)
        listed = ", ".join(f"{file} (MD5 {md5})" for file, md5 in sums.items())
        mend = (
            f"put {listed} into {self.data_dir / self.folder} by hand, or name a directory that has it with data_dir="
        )
        fetch(self.name, self.data_dir, self.folder, missing, [route], mend)

    def _is_whole(self, file: str) -> bool:
        path = self.path(file)
        try:
            if not path.exists():
                return False
            digest = hashlib.md5(usedforsecurity=False)
            with path.open("rb") as opened:
                while chunk := opened.read(CHUNK):
                    digest.update(chunk)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({describe(error)}); set data_dir= to another directory") from error
        if digest.hexdigest() != self.sums[file]:
            print(f"{self.name}: {path} is broken or incomplete: it is fetched anew", file=sys.stderr, flush=True)
        return digest.hexdigest() == self.sums[file]

    def broken(self, file: str, error: BaseException | str) -> DataError:
        """The sentence about an archive that has its checksum and cannot be read all the same."""
        return DataError(f"{self.path(file)} cannot be read ({describe(error)}); delete it to have it fetched again")
