"""Trainings small enough to draw pages of, and what a page holds."""

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from html.parser import HTMLParser

from vae_cli.commands import evaluate
from vae_cli.config import compose
from vae_cli.runs.reader import LOCK
from vae_cli.training.run import run as train

NARROW = ["encoder.hidden=[16]", "decoder.hidden=[16]", "device=cpu"]


def trained(directory, *settings, command="vae-train latent_dim=2"):
    """Return the directory of a run that was trained there."""
    config = compose.compose("train", ["epochs=3", "latent_dim=2", *NARROW, *settings])
    assert train(config, directory, command=command) == 0
    return directory


@contextmanager
def sweep_of_five(folder):
    """Two completed runs, one of them evaluated; one that failed, one that was killed, one that is being trained."""
    trained(folder / "0")
    trained(folder / "1", "latent_dim=9", "epochs=2", "seed=5")
    trained(folder / "2", "epochs=1", "report=false")
    for name in ("10", "3"):
        shutil.copytree(folder / "2", folder / name)
    summary = json.loads((folder / "2" / "summary.json").read_text())
    failed = summary | {"status": "failed", "test": None, "error": "the loss was not finite: try a <b>smaller</b> lr"}
    (folder / "2" / "summary.json").write_text(json.dumps(failed))
    (folder / "10" / "summary.json").unlink()
    (folder / "3" / "summary.json").unlink()
    (folder / "3" / LOCK).touch()
    lock = os.open(folder / "3" / LOCK, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    evaluate.run(compose.compose("evaluate", [f"checkpoint={folder / '1'}", "num_importance_samples=20", "limit=50"]))
    yield folder
    os.close(lock)


class Page(HTMLParser):
    """A page's references to other files, the size of its script, and its text."""

    def __init__(self, text):
        super().__init__()
        self.references, self.script, self.text, self.tag = [], 0, "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tag = tag
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data") and not (value or "").startswith(("data:", "#")):
                self.references.append((tag, name, value))
        self.references += [(tag, None, None)] if tag in ("link", "iframe", "object", "embed") else []

    def handle_endtag(self, tag):
        self.tag = None

    def handle_data(self, data):
        if self.tag == "script":
            self.script += len(data.encode())
        else:
            self.text += data
