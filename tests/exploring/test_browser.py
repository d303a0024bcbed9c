"""The page in a real browser: dragged over, dropped on, typed into."""

import json
import shlex
import time

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import needs_browser
from tests.support.commands import status
from tests.support.driver import browser
from tests.support.exploring import explorer, pixels, served
from vae_cli import cli

pytestmark = needs_browser
READY = "document.querySelectorAll('#neighbours img').length === 8"
CODE = "[...document.querySelectorAll('.slider')].map(row => [row.children[1].id.slice(7), +row.children[2].value])"


@pytest.fixture(scope="module")
def tab():
    with browser() as tab:
        yield tab


@pytest.fixture
def page(tab, site):
    return opened(tab, site.address)


@pytest.fixture
def labeled_page(tab, labeled_site):
    return opened(tab, labeled_site.address)


def opened(tab, address, ready=READY, width=1240):
    tab.console.clear()
    tab.requested.clear()
    tab.size(width)
    tab.open(address)
    tab.until(ready)
    return tab


def code(tab):
    """Return z as the sliders' fields show it."""
    return [value for _, value in sorted(tab.value(CODE))]


def picture(tab, selector="#image"):
    return tab.value(f"document.querySelector('{selector}').src")


def changed(tab, before):
    tab.until(f"document.querySelector('#image').src !== {json.dumps(before)}")
    return picture(tab)


def settled(tab, site, label=None):
    """Wait until the picture in view is the one at the code in view."""
    body = {"z": code(tab)} | ({} if label is None else {"label": label})
    tab.until(f"document.querySelector('#image').src === {json.dumps(site.json('image', body)[1]['image'])}")


def test_nothing_comes_from_other_addresses_and_nothing_is_blocked(page, site):
    assert page.console == []
    assert all(url.startswith((site.address, "data:")) for url in page.requested)


def test_the_image_follows_the_hand_over_the_plane(page, site):
    before, z = picture(page), code(page)
    page.drag("#plane", [(0.3, 0.3), (0.4, 0.4), (0.5, 0.45)], pause=0.03)
    changed(page, before)
    assert code(page) != z
    settled(page, site)
    z = code(page)
    x, y = page.where("#plane", 0.9, 0.9)
    page.mouse("mouseMoved", x, y, pressed=False)
    assert code(page) == z  # the button is up


def test_a_fast_hand_has_few_requests_and_ends_at_the_newest_place(page, site):
    page.requested.clear()
    page.drag("#plane", [(0.1 + 0.008 * step, 0.5 + 0.3 * (step % 2)) for step in range(100)])
    settled(page, site)
    assert 1 <= sum(url.endswith("/image") for url in page.requested) <= 101
    at = page.value("[state.x, state.y].map(axis => (place(axis, state.z) - axis.low) / (axis.high - axis.low))")
    assert at == pytest.approx([0.1 + 0.008 * 99, 1 - 0.8], abs=0.01)


def test_arrow_keys_move_over_the_plane_and_the_focus_is_seen(page, site):
    page.value("document.querySelector('#legend').hidden = false")
    page.click("#center")
    page.value("document.querySelector('#plane').focus({focusVisible: true})")
    assert page.value("getComputedStyle(document.querySelector('#plane')).outlineStyle") == "solid"
    start = page.value("place(state.x, state.z)")
    page.press("ArrowRight")
    one = page.value("place(state.x, state.z)")
    page.press("ArrowRight", shift=True)
    assert 0 < one - start < page.value("place(state.x, state.z)") - one
    up = page.value("place(state.y, state.z)")
    page.press("ArrowUp")
    assert page.value("place(state.y, state.z)") > up
    settled(page, site)
    page.until("document.querySelector('#spoken').textContent.includes('principal 1')")


def test_a_slider_is_dragged_pressed_and_typed(page, site):
    name = page.value("dimensions[0].dimension")
    first, typed = f"#slider-{name}", f"#exact-{name}"
    page.click(first)
    page.drag(first, [(0.5, 0.5), (0.8, 0.5)])
    dragged = code(page)[name]
    assert dragged > page.value("dimensions[0].start")
    page.press("ArrowLeft")
    assert code(page)[name] < dragged
    page.write(typed, "-1.25")
    assert code(page)[name] == -1.25
    settled(page, site)
    assert "-1.25" in page.value("document.querySelector('#command').textContent")


def test_an_image_is_dropped_chosen_and_refused(page, site, tmp_path):
    Image.fromarray(np.eye(40, dtype=np.uint8) * 255).save(tmp_path / "line.png")
    page.drop("#drop", tmp_path / "line.png")
    page.until("document.querySelector('#inputname').textContent === 'line.png'")
    expected = site.upload((tmp_path / "line.png").read_bytes())[1]
    assert picture(page, "#input") == expected["input"] and picture(page, "#rebuilt") == expected["image"]
    assert code(page) == expected["z"] and picture(page) == expected["image"]

    (tmp_path / "notes.png").write_text("these are words")
    page.drop("#plane", tmp_path / "notes.png")
    page.until("!document.querySelector('#problem').hidden")
    assert "no picture" in page.value("document.querySelector('#problem').textContent")
    assert page.value("document.querySelector('#inputname').textContent") == "line.png"

    Image.fromarray(np.full((50, 50), 200, np.uint8)).save(tmp_path / "gray.png")
    field = page.call("DOM.querySelector", nodeId=page.call("DOM.getDocument")["root"]["nodeId"], selector="#file")
    page.call("DOM.setFileInputFiles", files=[str(tmp_path / "gray.png")], nodeId=field["nodeId"])
    page.until("document.querySelector('#inputname').textContent === 'gray.png'")
    assert page.value("document.querySelector('#problem').hidden")


def test_a_file_dropped_on_an_end_is_that_end(page, tmp_path):
    for name, values in (("a", np.eye(16)), ("b", np.ones((16, 16)))):
        Image.fromarray((255 * values).astype(np.uint8)).save(tmp_path / f"{name}.png")
        page.drop(f"#{name}", tmp_path / f"{name}.png")
        page.until(f"document.querySelector('#{name} img') !== null")
    page.until("document.querySelectorAll('#strip img').length === 9")
    images = page.value("[...document.querySelectorAll('#strip img')].map(image => image.src)")
    assert len(set(images)) > 3 and picture(page, "#a img") != picture(page, "#b img")
    page.drag("#t", [(0.5, 0.5), (0.0, 0.5)])
    page.until("document.querySelector('#part').textContent === '0%'")
    assert page.value("state.z.every((value, d) => value === ends.a.z[d])")


def test_a_neighbour_is_visited(page):
    number = page.value("document.querySelectorAll('#neighbours button')[3].title")
    page.click("#neighbours button:nth-child(4)")
    page.until(f"{json.dumps(number)}.startsWith(document.querySelector('#inputname').textContent)")
    nearest = "document.querySelector('#neighbours button').title"
    page.until(f"{nearest}.includes({json.dumps(number.partition(',')[0])}) && {nearest}.endsWith('distance 0')")


def test_draws_have_a_seed_a_temperature_and_a_command(page, site):
    page.click("#draw")
    page.until("document.querySelector('#command').textContent.endsWith('n=1 seed=0 output=image.png')")
    page.click("#draw")
    page.until("document.querySelector('#command').textContent.endsWith('n=1 seed=1 output=image.png')")
    page.write("#seed", "12")
    page.drag("#temperature", [(0.5, 0.5), (0.25, 0.5)])
    page.until("document.querySelector('#command').textContent.includes('seed=12 temperature=0.')")
    temperature = page.value("state.draw.temperature")
    assert code(page) == site.json("draw", {"seed": 12, "temperature": temperature})[1]["z"]
    assert f"temperature={temperature}" in page.value("document.querySelector('#code').textContent")


def test_the_command_and_the_code_make_the_image_in_view(labeled_page, labeled_site, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labeled_page.click("#labels label:nth-of-type(4)")
    labeled_page.drag("#plane", [(0.3, 0.6), (0.41, 0.37)])
    settled(labeled_page, labeled_site, 3)
    shown = pixels(picture(labeled_page)).astype(int)

    name, *words = shlex.split(labeled_page.value("document.querySelector('#command').textContent"))
    assert name == "vae-sample" and status(cli.sample, *words, "device=cpu") == 0
    made = np.asarray(Image.open(tmp_path / "image.png"))[5:-2:7, 5:-2:7].astype(int)  # each pixel is 7x7, in a frame
    assert np.abs(made - shown).max() <= 1

    names = {}
    exec(labeled_page.value("document.querySelector('#code').textContent"), names)  # noqa: S102
    assert np.abs((255 * names["image"]).round()[0, 0].numpy() - shown).max() <= 1


@pytest.mark.parametrize(("button", "text"), [("#copycommand", "#command"), ("#copycode", "#code")])
def test_the_command_and_the_code_are_copied(page, button, text):
    page.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.click(button)
    page.until(f"document.querySelector('{button}').textContent === 'Copied'")
    assert page.value("navigator.clipboard.readText()") == page.value(f"document.querySelector('{text}').textContent")


def test_the_image_stays_in_view_beside_the_sliders_of_a_narrow_screen(tab, site):
    opened(tab, site.address, width=400)
    before = picture(tab)
    last = tab.value("dimensions.at(-1).dimension")
    tab.drag(f"#slider-{last}", [(0.5, 0.5), (0.9, 0.5)])
    changed(tab, before)
    box = tab.value("(b => [b.top, b.bottom])(document.querySelector('#image').getBoundingClientRect())")
    assert tab.value("scrollY") > 200 and box[0] >= 0 and 100 < box[1] < 300


def test_labels_are_chosen_by_hand_and_by_key(labeled_page, labeled_site):
    z, before = code(labeled_page), picture(labeled_page)
    own = labeled_page.value("state.label")
    other = (own + 1) % 10
    labeled_page.click(f"#labels label:nth-of-type({other + 1})")
    after = changed(labeled_page, before)
    assert code(labeled_page) == z
    settled(labeled_page, labeled_site, other)
    labeled_page.press("ArrowLeft" if other else "ArrowRight")
    changed(labeled_page, after)
    label = labeled_page.value("state.label")
    assert label != other
    assert labeled_page.value("document.querySelector('#command').textContent").endswith(
        f"label={label} output=image.png"
    )


def test_the_plane_can_be_another(page):
    page.value("document.querySelector('#across').focus()")
    page.value("(a => { a.value = 'z2'; a.dispatchEvent(new Event('change')); })(document.querySelector('#across'))")
    assert page.value("[state.x, state.y].map(axis => axis.name)")[0] == "z2"
    assert page.value("'dimension' in state.y && state.y.name !== 'z2'")
    z = code(page)
    page.drag("#plane", [(0.2, 0.2), (0.25, 0.2)])
    moved = [d for d, (one, other) in enumerate(zip(z, code(page))) if one != other]
    assert 2 in moved and len(moved) <= 2


def test_every_control_has_a_name_and_every_image_a_text(labeled_page):
    labeled_page.click("#a")
    labeled_page.click("#b")
    labeled_page.until("document.querySelectorAll('#strip img').length === 9")
    unnamed = labeled_page.value(
        "[...document.querySelectorAll('input, select, button')].filter(e => !(e.labels && e.labels.length && "
        "e.labels[0].textContent.trim()) && !e.ariaLabel && !e.textContent.trim()).map(e => e.outerHTML)"
    )
    assert unnamed == []
    assert labeled_page.value("[...document.images].filter(i => !i.closest('button.slot') && !i.alt).length") == 0


@pytest.mark.parametrize("width", [320, 400, 800])
def test_a_narrow_screen_cuts_nothing_off(tab, labeled_site, width):
    opened(tab, labeled_site.address, width=width)
    tab.click("#a")
    tab.click("#b")
    tab.until("document.querySelectorAll('#strip img').length === 9")
    assert tab.value("document.documentElement.scrollWidth") <= width
    wide = (
        "[...document.querySelectorAll('main *')].filter(e => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert tab.value(wide) == 0
    assert (
        tab.value(
            "Math.min(...[...document.querySelectorAll('p, label, button')].map(e => parseFloat("
            "getComputedStyle(e).fontSize)))"
        )
        >= 12
    )


def test_without_test_images_the_page_says_so_and_works(tab, plain_run):
    with served(explorer(plain_run, has_test=False), reason="the <b>folder</b> is gone") as site:
        opened(tab, site.address, "document.querySelector('#image').src.startsWith('data:')")
        assert "the <b>folder</b> is gone" in tab.value("document.querySelector('.warning').textContent")
        assert "no test images" in tab.value("document.querySelector('#near').textContent")
        assert tab.value("document.querySelector('#tests').hidden")
        before = picture(tab)
        tab.drag("#plane", [(0.2, 0.2), (0.9, 0.9)])
        changed(tab, before)
        settled(tab, site)
        assert tab.console == []


def test_a_server_that_has_ended_is_said_in_the_page(tab, plain):
    with served(plain) as site:
        opened(tab, site.address)
    time.sleep(0.1)
    tab.drag("#plane", [(0.2, 0.2), (0.9, 0.9)])
    tab.until("document.querySelector('#problem').textContent.includes('Start it again')")
