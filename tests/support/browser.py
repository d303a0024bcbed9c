"""A page looked at in a real browser, at a width of choice."""

import json
import re
import shutil
import subprocess
import tempfile
from html import unescape

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--allow-file-access-from-files"),
    *("--enable-logging=stderr", "--window-size=1300,1000", "--virtual-time-budget=30000", "--dump-dom"),
]

FRAME = """<!doctype html>
<iframe id="f" src="NAME" style="width:WIDTHpx;height:1500px;border:0"></iframe>
<pre id="out"></pre>
<script>
f.onload = async () => {
  const w = f.contentWindow, d = f.contentDocument, pause = ms => new Promise(r => setTimeout(r, ms));
  for (let i = 0; i < 100 && [...d.querySelectorAll(".chart")].some(c => !c.querySelector("svg")); i++) await pause(50);
  await pause(100);
  const texts = [...d.body.querySelectorAll("*")].filter(e => !e.closest("script,style,svg") &&
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
  const smallest = some => Math.min(20, ...[...some].map(e => parseFloat(w.getComputedStyle(e).fontSize)));
  const found = {
    images: [...d.images].map(i => i.complete && i.naturalWidth > 0),
    charts: [...d.querySelectorAll(".chart")].map(c => c.querySelectorAll("svg path").length),
    letters: smallest(texts),
    cut: [...d.querySelectorAll("svg text")].filter(t => {
      const [inner, outer] = [t.getBoundingClientRect(), t.closest("svg").getBoundingClientRect()];
      return inner.width && (inner.left < outer.left - 1 || inner.right > outer.right + 1);
    }).map(t => t.textContent),
    chart_letters: smallest(d.querySelectorAll("svg text")),
    wide: d.documentElement.scrollWidth,
    title: d.title,
  };
  found.script = await (async () => { SCRIPT })();
  out.textContent = JSON.stringify(found);
};
</script>"""


def look(page, width=400, script="return null"):
    """Return what a browser shows of a page: pictures, charts, sizes, the value of `script`, and console messages.

    `script` sees the page's window and document as `w` and `d`, and `pause(ms)`.
    """
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.replace("NAME", page.name).replace("WIDTH", str(width)).replace("SCRIPT", script))
    with tempfile.TemporaryDirectory() as profile:
        call = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", frame.as_uri()]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    frame.unlink()
    written = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert written and written[1], done.stderr[-2000:]
    shown = json.loads(unescape(written[1]))
    shown["console"] = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return shown
