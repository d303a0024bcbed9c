"""The device that a process computes on."""

import pytest
import torch

from vae_cli.build.device import choose_device
from vae_cli.distributed.ranks import Rank
from vae_cli.errors import ConfigError


def test_a_device_of_its_own_for_every_process(monkeypatch):
    assert choose_device("cpu", Rank(1, 2, 1, 2)) == torch.device("cpu")
    with pytest.raises(ConfigError, match="device=cuda:0 cannot be shared by 2 processes; use device=cuda"):
        choose_device("cuda:0", Rank(0, 2, 0, 2))
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("auto", Rank(5, 6, 1, 2)) == torch.device("cuda:1") and chosen == [1]
    with pytest.raises(ConfigError, match=r"3 processes on a machine with 2 GPUs"):
        choose_device("cuda", Rank(0, 3, 0, 3))
