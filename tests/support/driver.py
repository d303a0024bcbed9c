"""A browser driven as a person drives it, by mouse, keys and dropped files, over the DevTools protocol on two pipes."""

import base64
import json
import os
import select
import subprocess
import tempfile
import time
from contextlib import contextmanager

from tests.support.browser import CHROMIUM

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"),
    *("--disable-component-update", "--disable-sync", "--disable-quic", "--remote-debugging-pipe"),
]
SECONDS = 60.0
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Enter": 13, " ": 32}


class Tab:
    """One page of a browser."""

    def __init__(self, process, reads, writes):
        self.process, self.reads, self.writes = process, reads, writes
        self.buffer, self.number, self.session = b"", 0, None
        self.console, self.requested = [], []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        """Call a method of the protocol and return its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + SECONDS
        while True:
            answer = self._next(deadline)
            if answer.get("id") == self.number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self._note(answer)

    def _next(self, deadline):
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reads], [], [], max(0, deadline - time.monotonic()))
            assert ready, "the browser does not answer"
            self.buffer += os.read(self.reads, 1 << 20)
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event):
        params = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.console.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif event.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.console.append(params["entry"]["text"])
        elif event.get("method") == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])

    def size(self, width, height=900, dark=False):
        """Set the width and height of the window, and whether it is dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address):
        """Go to an address and wait until the page is loaded."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def value(self, script):
        """Return the value of an expression, awaited."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def until(self, script, seconds=SECONDS):
        """Wait until an expression is true, and return its value."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := self.value(script):
                return found
            time.sleep(0.02)
        raise AssertionError(f"never: {script}; console: {self.console}")

    def where(self, selector, across=0.5, down=0.5):
        """Return a point of an element that is scrolled into view."""
        box = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'center'}); const b = e.getBoundingClientRect();"
            " return [b.left, b.top, b.width, b.height]; })()"
        )
        return box[0] + across * box[2], box[1] + down * box[3]

    def mouse(self, kind, x, y, pressed=True):
        """Move, press or release the left button."""
        self.call(
            "Input.dispatchMouseEvent",
            type=kind,
            x=x,
            y=y,
            button="left",
            buttons=int(pressed),
            clickCount=1,
        )

    def click(self, selector):
        """Click the middle of an element."""
        x, y = self.where(selector)
        self.mouse("mouseMoved", x, y, pressed=False)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y, pressed=False)

    def drag(self, selector, places, pause=0.0):
        """Drag over an element from place to place, each (across, down) as fractions of its size."""
        points = [self.where(selector, *place) for place in places]
        self.mouse("mousePressed", *points[0])
        for point in points[1:]:
            self.mouse("mouseMoved", *point)
            time.sleep(pause)
        self.mouse("mouseReleased", *points[-1], pressed=False)

    def drop(self, selector, path):
        """Drop a file on an element."""
        x, y = self.where(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key, shift=False):
        """Press and release a key."""
        code = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key], "modifiers": 8 if shift else 0}
        self.call("Input.dispatchKeyEvent", type="rawKeyDown", **code)
        if key in ("Enter", " "):
            self.call("Input.dispatchKeyEvent", type="char", text="\r" if key == "Enter" else " ", **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def write(self, selector, text):
        """Replace the text of a field by typing."""
        self.click(selector)
        self.value(f"document.querySelector({json.dumps(selector)}).select()")
        for letter in text:
            self.call("Input.dispatchKeyEvent", type="keyDown", text=letter, key=letter)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=letter)

    def screenshot(self, path):
        """Write a PNG of the whole page."""
        height = self.value("document.documentElement.scrollHeight")
        width = self.value("document.documentElement.clientWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser():
    """Start a browser and yield a page of it."""
    down, up = os.pipe(), os.pipe()  # to the browser, which reads descriptor 3 and writes 4, and from it
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        script = f'exec "$@" 3<&{down[0]} 4>&{up[1]}'
        call = ["bash", "-c", script, "bash", CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        process = subprocess.Popen(call, pass_fds=(down[0], up[1]), stderr=subprocess.DEVNULL)
        os.close(down[0])
        os.close(up[1])
        try:
            yield Tab(process, up[0], down[1])
        finally:
            os.close(down[1])
            process.terminate()
            process.wait(timeout=20)
            os.close(up[0])
