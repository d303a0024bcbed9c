"""Free memory is what the system and its container leave, and sizes are said in a unit that suits them."""

import pytest

from vae_cli.system import memory


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (999.9, "1 KB"),
        (1500, "1.5 KB"),
        (999_600, "1 MB"),
        (2.5e9, "2.5 GB"),
        (3e15, "3 PB"),
        (1.2e19, "12,000 PB"),
    ],
)
def test_a_size_has_three_digits_and_its_unit(count, text):
    assert memory.format_size(count) == text


def test_a_containers_limit_counts_where_it_is_the_smaller(tmp_path, monkeypatch):
    (tmp_path / "limit").write_text("1000000\n")
    (tmp_path / "none").write_text("max\n")
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(tmp_path / "none"), str(tmp_path / "missing")))
    of_the_system = memory.available()
    monkeypatch.setattr(memory, "CGROUP_LIMITS", (str(tmp_path / "none"), str(tmp_path / "limit")))
    assert memory.available() == 1e6 < of_the_system
