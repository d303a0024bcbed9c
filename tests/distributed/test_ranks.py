"""The ranks of the processes of one training, from the variables that torchrun sets."""

import pytest

from vae_cli.distributed import collectives
from vae_cli.distributed.ranks import Rank, rank_from_environment
from vae_cli.errors import ConfigError


def test_a_process_alone_has_no_others():
    assert rank_from_environment() == Rank() and Rank().is_main and Rank().share(5) == slice(0, 5)
    assert collectives.all_reduce_max(3, 4) == (3, 4) and collectives.broadcast("x") == "x"


@pytest.mark.parametrize("rank", ["2", "x", "-1"])
def test_variables_that_make_no_sense_are_refused(rank, monkeypatch):
    for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"RANK={rank} WORLD_SIZE=2 in the environment"):
        rank_from_environment()
