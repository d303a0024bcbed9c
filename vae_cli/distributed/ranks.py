"""The place of this process among those that train one model together."""

from __future__ import annotations

import os
from dataclasses import dataclass

from vae_cli.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rank:
    """Process number `rank` of `world_size`, and number `local_rank` of `local_world_size` on its machine.

    Rank 0 writes the run directory and speaks; the others are silent.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Return this process's part of `count` images: in order of rank, as even as can be, perhaps empty."""
        return slice(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)


def rank_from_environment() -> Rank:
    """Return the rank that a launcher such as torchrun gave this process, or that of a process alone.

    Raises:
        ConfigError: if the launcher's variables do not go together.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        return Rank()
    try:
        rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        local_world_size = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        if not (0 <= rank < world_size and 0 <= local_rank < local_world_size <= world_size):
            raise ValueError
    except ValueError as error:
        variables = " ".join(f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE"))
        raise ConfigError(
            f"{variables} in the environment is no rank of a group; start processes with torchrun"
        ) from error
    return Rank(rank, world_size, local_rank, local_world_size)
