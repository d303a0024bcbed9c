"""The device that a process computes on."""

import pytest
import torch

from vae_cli.build.device import choose_device, has_bfloat16
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


@pytest.mark.parametrize("names", [[], ["_is_amx_tile_supported"], ["_is_avx512_bf16_supported"]])
def test_a_processor_has_bfloat16_with_one_of_two_instruction_sets(names, monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in names, raising=False)
    assert has_bfloat16(torch.device("cpu")) == bool(names)
    assert not has_bfloat16(torch.device("mps"))


def test_a_gpu_that_only_emulates_bfloat16_does_not_have_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not has_bfloat16(torch.device("cuda"))
