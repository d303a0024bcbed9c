"""Trained models of digits, and servers of their pages."""

import base64
import http.client
import io
import json
import threading
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

from tests.support.pages import trained
from vae_cli.build import trained as build
from vae_cli.exploring import server
from vae_cli.exploring.explorer import Explorer
from vae_cli.inference.inputs import choose_split, load_data
from vae_cli.runs import checkpoint

TOKEN = "a-secret"


def pixels(data_url):
    """Return the image of a data URL as bytes."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data_url.partition(",")[2]))))


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("explored") / "plain", "latent_dim=4", "epochs=8", "report=false")


@pytest.fixture(scope="session")
def conditional_run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("explored") / "labels", "conditional=true", "epochs=8", "report=false")


def explorer(run, has_test=True):
    loaded = build.load(checkpoint.find(run), "cpu")
    data = load_data(loaded, {"data_dir": None, "allow": None})
    return Explorer(loaded, choose_split(data, "test", loaded) if has_test else None)


@pytest.fixture(scope="session")
def plain(plain_run):
    return explorer(plain_run)


@pytest.fixture(scope="session")
def conditional(conditional_run):
    return explorer(conditional_run)


class Site:
    """A page's server, asked over HTTP."""

    def __init__(self, port):
        self.port, self.address = port, f"http://127.0.0.1:{port}/{TOKEN}/"

    def ask(self, name, body=b"", method="POST", headers=(), token=TOKEN, host=None):
        """Return the status, the headers and the body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Content-Type": "application/json", "Host": host or f"127.0.0.1:{self.port}"} | dict(headers)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request(method, f"/{token}/{name}", data, sent)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.headers, content

    def json(self, name, body=b"", **more):
        """Return the status and the JSON of an answer."""
        status, _, content = self.ask(name, body, **more)
        return status, json.loads(content)

    def upload(self, data, **options):
        """Return the status and the JSON of the answer to a file."""
        headers = {"Content-Type": "application/octet-stream", "X-Options": json.dumps(options)}
        return self.json("encode", data, headers=headers)


@contextmanager
def served(explorer, source="runs/digits", reason=""):
    bound = server.bind(None)
    site = Site(bound.getsockname()[1])
    running = server.server(server.application(explorer, TOKEN, str(source), reason))
    thread = threading.Thread(target=running.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    yield site
    running.should_exit = True
    thread.join(10)
    bound.close()


@pytest.fixture(scope="session")
def site(plain, plain_run):
    with served(plain, plain_run) as site:
        yield site


@pytest.fixture(scope="session")
def labeled_site(conditional, conditional_run):
    with served(conditional, conditional_run) as site:
        yield site
