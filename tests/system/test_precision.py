"""The types of numbers that a device is fast with."""

import pytest
import torch

from vae_cli.system.precision import has_bfloat16


@pytest.mark.parametrize("names", [[], ["_is_amx_tile_supported"], ["_is_avx512_bf16_supported"]])
def test_a_processor_has_bfloat16_with_one_of_two_instruction_sets(names, monkeypatch):
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in names, raising=False)
    assert has_bfloat16(torch.device("cpu")) == bool(names)
    assert not has_bfloat16(torch.device("mps"))


def test_a_gpu_that_only_emulates_bfloat16_does_not_have_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not has_bfloat16(torch.device("cuda"))
