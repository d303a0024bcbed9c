"""Numbers and pictures in a page."""

from PIL import Image

from vae_cli.reporting import page


def test_numbers_are_readable():
    shown = [0, 12345, 0.5, -103.70561, 0.00012345, 1.5e9, None, True, "text", 3.14159, 0.027812]
    expected = ["0", "12,345", "0.5", "-103.71", "0.000123", "1.5e+09", "", "true", "text", "3.14", "0.0278"]
    assert [page.format_number(value) for value in shown] == expected


def test_durations_are_in_a_unit_that_suits_them():
    assert [page.format_duration(seconds) for seconds in (1.25, 240, 7200)] == ["1.2 s", "4.0 min", "2.0 h"]


def test_only_a_plain_png_is_shown(tmp_path):
    Image.new("L", (9, 9)).save(tmp_path / "real.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "real.png")
    (tmp_path / "text.png").write_text("no picture")
    shown = {name: page.picture(tmp_path / f"{name}.png") for name in ("real", "link", "text", "none")}
    assert shown.pop("real").startswith("data:image/png;base64,iVBOR") and set(shown.values()) == {None}


def test_the_script_is_bundled_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "cache_dir", lambda: tmp_path)
    page.javascript.cache_clear()
    script = page.javascript()
    (kept,) = tmp_path.iterdir()
    assert kept.read_text() == script and "</script" not in script
    monkeypatch.setattr("vl_convert.javascript_bundle", None)
    page.javascript.cache_clear()
    assert page.javascript() == script
