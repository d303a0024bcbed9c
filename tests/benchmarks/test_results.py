"""The table of `make results`: what it runs, and what it makes of it."""

import math
from pathlib import Path

import pytest

from vae_cli import cli
from vae_cli.config import compose

BENCHMARKS = Path(__file__).parent
FAKE = "dataset=digits epochs=1 latent_dim=2 encoder.hidden=[8] decoder.hidden=[8] device=cpu report=false threads=1"


@pytest.fixture(scope="module")
def results():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        import results
    return results


@pytest.fixture
def page(results, tmp_path):
    path = tmp_path / "results.md"
    path.write_text(f"# Results\n\n{results.BEGIN}\nold\n| `vae-train gone` | x |\n{results.END}\n\nAfter.\n")
    return path


def rows_of(page):
    return [line for line in page.read_text().splitlines() if line.startswith("| `")]


def call_here(command, *settings):
    """Run a command in this process, which has torch already; return its exit status."""
    try:
        getattr(cli, command)(list(settings))
    except SystemExit as ended:
        return ended.code or 0
    return 0


def test_a_claims_command_is_run_and_its_row_stands_between_the_markers(results, page, capfd, monkeypatch):
    monkeypatch.setattr(results, "_call", call_here)
    claim = results.Claim("fake", FAKE, -250.0, 150.0)
    assert results.main([claim], [], page) == 0
    text = page.read_text()
    assert text.startswith(f"# Results\n\n{results.BEGIN}\n") and text.endswith(f"{results.END}\n\nAfter.\n")
    (row,) = [line for line in rows_of(page) if "epochs=1" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == [f"`vae-train {FAKE}`", "test ELBO", "−250.00 ± 150"] and cells[5] == "0"
    assert -400 < float(cells[3].replace("−", "-")) < -100 and float(cells[4]) >= 0 and "torch" in cells[7]
    assert row in capfd.readouterr().out and "gone" not in text and "old" not in text


def test_log_p_is_taken_from_an_evaluation_of_the_run(results, page, monkeypatch):
    monkeypatch.setattr(results, "_call", call_here)
    claim = results.Claim("fake", FAKE, -250.0, 150.0, draws=3)
    assert results.main([claim], [], page) == 0
    assert f"| `vae-train {FAKE}` | log p(x), 3 draws | −250.00 ± 150 | −" in page.read_text()


@pytest.mark.slow
def test_commands_run_in_processes_of_their_own_and_their_failure_is_seen(results, page, capfd):
    claims = [results.Claim("good", FAKE, -250.0, 150.0), results.Claim("bad", "dataset=nothing", 0.0, 1.0)]
    assert results.main(claims, ["--only", "good"], page) == 0
    assert results.main(claims, ["--only", "bad"], page) == 1
    assert "dataset=nothing" in capfd.readouterr().err and "**failed: outside**" in page.read_text()


def test_a_command_that_fails_is_a_failed_claim(results, page, monkeypatch):
    monkeypatch.setattr(results, "_call", lambda *words: 1)
    assert results.main([results.Claim("fake", FAKE, -250.0, 100.0)], [], page) == 1
    assert "**failed: outside**" in page.read_text()


@pytest.mark.parametrize(("value", "status"), [(-90.7, 0), (-91.4, 0), (-91.6, 1), (-90.4, 1), (math.nan, 1)])
def test_a_value_outside_the_tolerance_fails_and_says_so(results, page, monkeypatch, capsys, value, status):
    monkeypatch.setattr(results, "measure", lambda *_: results.Measured(value, 61.7))
    claim = results.Claim("one", "dataset=digits", -91.0, 0.5, draws=5000)
    assert results.main([claim], [], page) == status
    (row,) = [line for line in rows_of(page) if "`vae-train dataset=digits`" in line]
    assert "| log p(x), 5,000 draws | −91.00 ± 0.5 |" in row and "| 62 | 0 |" in row
    assert ("outside" in row) == status and ("one" in capsys.readouterr().err) == status


def test_only_those_that_are_named_are_run_and_rows_of_others_stay(results, page, monkeypatch):
    run = []
    monkeypatch.setattr(results, "measure", lambda claim, _: run.append(claim.name) or results.Measured(claim.value, 1))
    assert results.main(arguments=["--only", "mnist"], page=page) == 0
    first = rows_of(page)
    assert len(first) == len(results.CLAIMS) and sum("not run yet" in row for row in first) == len(first) - 1
    assert results.main(arguments=["--only", "digits", "ppca"], page=page) == 0
    assert run == ["mnist", "digits", "ppca"] and sum("not run yet" in row for row in rows_of(page)) == len(first) - 3


def test_a_page_without_a_place_for_the_table_is_refused(results):
    for text in ("", results.BEGIN, results.END + results.BEGIN):
        with pytest.raises(ValueError, match="no <!-- results:begin -->"):
            results.rewritten(text, {})


def test_claims_are_values_of_the_page_with_settings_that_compose(results):
    before, _, rest = results.PAGE.read_text(encoding="utf-8").partition(results.BEGIN)
    table, _, after = rest.partition(results.END)
    assert len({claim.name for claim in results.CLAIMS}) == len(results.CLAIMS)
    for claim in results.CLAIMS:
        assert results.shown(claim.value) in before + after, claim
        assert f"`{claim.command}` | {claim.number} | {results.shown(claim.value)} ± {claim.tolerance:g} |" in table
        compose.compose("train", claim.settings.split())
