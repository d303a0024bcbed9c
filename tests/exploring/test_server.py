"""The server answers its own page, and refuses everything else in one line."""

import http.client
import io
import json
import socket
import struct
import threading
import time
import zlib
from contextlib import ExitStack

import numpy as np
import pytest
import torch
from PIL import Image

from tests.support.exploring import pixels
from vae_cli.errors import ConfigError
from vae_cli.exploring import server
from vae_cli.exploring.explorer import picture
from vae_cli.generation.samplers import Sampler

ORIGIN = 4 * [0.0]


def png(values):
    file = io.BytesIO()
    Image.fromarray(values).save(file, "PNG")
    return file.getvalue()


def bomb(side):
    """Return a PNG of a few hundred bytes that says it is very large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def test_the_page_is_one_file_that_lets_nothing_in(site, plain_run):
    status, headers, content = site.ask("", method="GET")
    page, policy = content.decode(), headers["Content-Security-Policy"]
    assert status == 200 and f"vae-sample checkpoint={plain_run}" in page
    assert not any(word in page for word in ('src="http', 'href="http', "@import", "url("))
    nonce = policy.partition("script-src 'nonce-")[2].partition("'")[0]
    assert page.count("<script") == page.count(f'nonce="{nonce}"') - 1 == 2
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "same-origin"
    assert site.ask("", method="GET")[1]["Content-Security-Policy"] != policy


@pytest.mark.parametrize("token", ["", "a-secre", "a-secret2", "A-SECRET", "%C3%A9", "..", "a-secret/.."])
def test_another_token_is_refused(site, token):
    for method, name in (("GET", ""), ("POST", "image"), ("POST", "encode"), ("OPTIONS", "image")):
        status, headers, content = site.ask(name, {"z": ORIGIN}, method=method, token=token)
        assert status == 404 and (token == "a-secret/.." or b"address" in content)
        assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example:80", "0.0.0.0:80", "x@127.0.0.1:1"]
)
def test_another_host_is_refused(site, host):
    assert site.json("image", {"z": ORIGIN}, host=host)[0] == 403
    assert site.ask("", method="GET", host=host)[0] == 403


@pytest.mark.parametrize("host", ["localhost:9000", "127.0.0.1"])
def test_a_port_that_is_passed_on_and_port_80_work(site, host):
    own = {"Origin": f"http://{host}"}
    assert site.json("image", {"z": ORIGIN}, host=host, headers=own)[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://127.0.0.1:1"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_origin_is_refused(site, headers):
    status, answer_headers, _ = site.ask("image", {"z": ORIGIN}, headers=headers)
    assert status == 403 and "Access-Control-Allow-Origin" not in answer_headers


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_bodies_that_a_form_can_send_are_refused(site, kind):
    assert site.json("image", {"z": ORIGIN}, headers={"Content-Type": kind})[0] == 400
    assert site.json("encode", b"x", headers={"Content-Type": kind})[0] == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"z": ' + b"[" * 30_000,
        b'{"z": [0, 0, 0, NaN]}',
        b'{"z": [0, 0, 0, -Infinity]}',
        b'{"z": [0, 0, 0, 1e400]}',
        b'{"z": [0, 0, 0, 1e9]}',
        b'{"z": [0, 0, 0, ' + b"9" * 5000 + b"]}",
        b'{"z": [0, 0, 0, ' + b"9" * 400 + b"]}",
        b'{"z": [0, 0, 0]}',
        b'{"z": [0, 0, 0, 0, 0]}',
        b'{"z": [0, 0, 0, "0"]}',
        b'{"z": [0, 0, 0, true]}',
        b'{"z": [[0, 0, 0, 0]]}',
        b'{"z": {"0": 0}}',
        b'{"z": [0, 0, 0, 0], "label": 0}',
        b"{}",
    ],
)
def test_what_is_no_code_is_refused(site, body):
    status, answer = site.json("image", body)
    assert status == 400 and "\n" not in answer["error"] and len(answer["error"]) < 200


@pytest.mark.parametrize(
    ("name", "body", "words"),
    [
        ("draw", {"seed": -1}, "seed has to be an integer from 0"),
        ("draw", {"seed": 1.5}, "seed"),
        ("draw", {"seed": 2**70}, "seed"),
        ("draw", {"temperature": -1}, "temperature has to be a number from 0 to 10"),
        ("test", {"number": 10**6}, "numbered 0 to"),
        ("test", {}, "number"),
        ("walk", {"first": ORIGIN, "second": ORIGIN, "steps": 1}, "steps has to be an integer from 2 to 25"),
        ("walk", {"first": ORIGIN, "second": ORIGIN, "steps": 10**9}, "steps"),
        ("walk", {"first": ORIGIN, "steps": 3}, "second has to be a list of 4 numbers"),
        ("points", {"x": "z9", "y": "z0"}, "x has to be one of p1"),
        ("points", {"x": ["p1"], "y": "z0"}, "x has to be one of"),
    ],
)
def test_what_a_request_may_not_say_is_refused_with_what_it_may(site, name, body, words):
    status, answer = site.json(name, body)
    assert status == 400 and words in answer["error"]


def test_labels_are_the_models(labeled_site):
    for wrong in (10, -1, "3", 1.0, None, True):
        assert labeled_site.json("image", {"z": [0, 0], "label": wrong})[0] == 400
    first, other = (labeled_site.json("image", {"z": [0, 0], "label": label})[1]["image"] for label in (0, 1))
    assert first != other


def test_large_bodies_are_refused_before_they_are_read(site):
    status, answer = site.json("image", b" " * (server.LARGEST_BODY + 1))
    assert status == 413 and "64 KB" in answer["error"]
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        head = f"POST /a-secret/encode HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n"
        head += "Content-Type: application/octet-stream\r\n"
        connection.sendall(f"{head}Content-Length: {10**12}\r\n\r\n".encode())
        assert b" 413 " in connection.recv(1 << 16)
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(head.replace("octet-stream", "json").replace("encode", "image").encode())
        connection.sendall(
            b"Transfer-Encoding: chunked\r\n\r\n" + (b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3 + b"0\r\n\r\n"
        )
        assert b" 413 " in connection.recv(1 << 16)


@pytest.mark.parametrize(
    "data",
    [b"", b"plain text", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"%PDF-1.4"],
)
def test_files_that_are_no_pictures_are_refused(site, data):
    status, answer = site.upload(data)
    assert status == 400 and "the file cannot be used" in answer["error"] and "\n" not in answer["error"]


def test_values_that_are_no_picture_are_refused_without_advice_that_has_no_place_here(site):
    file = io.BytesIO()
    Image.fromarray(np.full((9, 9), 40.0, np.float32)).save(file, "TIFF")
    status, answer = site.upload(file.getvalue())
    assert status == 400 and answer["error"].endswith("not from 0 to 1: rescale them")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_picture_that_would_fill_the_memory_is_not_decoded(site, side):
    status, answer = site.upload(bomb(side))
    assert status == 400 and "pixels are not opened" in answer["error"]


def test_a_picture_has_a_code_a_reconstruction_and_neighbours(site, plain):
    x = plain.test.split.images[7, 0].numpy()
    status, mine = site.upload(png((255 * (x / 16.0 if x.max() > 1 else x)).astype(np.uint8)))
    stored = site.json("test", {"number": 7})[1]
    assert status == 200 and mine["z"] == pytest.approx(stored["z"], abs=0.2)
    assert pixels(mine["input"]).shape == pixels(mine["image"]).shape == (8, 8)
    assert mine["image"] == site.json("image", {"z": mine["z"]})[1]["image"]
    nearest = site.json("neighbours", {"z": stored["z"]})[1]["neighbours"]
    assert nearest[0]["number"] == 7 and len(nearest) == 8
    assert [each["distance"] for each in nearest] == sorted(each["distance"] for each in nearest)


def test_an_inverted_picture_is_the_negative(site):
    ramp = png(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    one, other = (pixels(site.upload(ramp, invert=invert)[1]["input"]) for invert in (False, True))
    assert np.array_equal(one.astype(int) + other, np.full((8, 8), 255))


def test_a_draw_is_the_first_that_vae_sample_makes(site, plain):
    answer = site.json("draw", {"seed": 5, "temperature": 0.7})[1]
    z = Sampler(plain.model, 5, 0.7).chunk(0)[0]
    assert answer["z"] == pytest.approx(z.tolist(), abs=1e-4)


def test_the_image_of_a_draw_is_decoded_from_its_exact_z(plain):
    for seed in range(30):  # of few seeds alone does the rounding of z show in the image
        z = Sampler(plain.model, seed).chunk(0)
        with torch.no_grad():
            assert plain.draw(seed, 1.0, None)["image"] == picture(plain.model.image(z[:1])[0])


def test_a_request_without_a_path_is_refused(site):
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(f"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1:{site.port}\r\n\r\n".encode())
        assert b" 404 " in connection.recv(1 << 16)


def test_a_link_in_another_page_opens_the_page_and_nothing_else(site):
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert site.ask("", method="GET", headers=link)[0] == 200
    assert site.ask("", method="GET", headers=link, token="another")[0] == 404
    assert site.ask("", method="GET", headers=link | {"Sec-Fetch-Mode": "cors"})[0] == 403
    assert site.ask("", method="GET", headers=link | {"Sec-Fetch-Dest": "iframe"})[0] == 403
    assert site.ask("image", {"z": ORIGIN}, headers=link)[0] == 403


def test_a_walk_goes_from_one_end_to_the_other(labeled_site):
    first, second = [-1.0, 0.5], [1.0, 0.0]
    body = {"first": first, "second": second, "first_label": 3, "second_label": 8, "steps": 5}
    images = labeled_site.json("walk", body)[1]["images"]
    ends = [labeled_site.json("image", {"z": z, "label": y})[1]["image"] for z, y in ((first, 3), (second, 8))]
    assert len(images) == 5
    for image, end in zip((images[0], images[-1]), ends):
        assert np.abs(pixels(image).astype(int) - pixels(end)).max() <= 1


def test_the_plane_shows_where_the_codes_lie(site, plain):
    shown = site.json("points", {"x": "z1", "y": "z3"})[1]
    assert torch.allclose(torch.tensor(shown["points"]), plain.test.means[:, [1, 3]], atol=1e-3)
    assert shown["labels"] == plain.test.labels.tolist()


def test_a_hand_that_moves_fast_gets_answers_to_some_and_blocks_nobody(site):
    statuses = []

    def ask():
        statuses.append(site.json("image", {"z": ORIGIN})[0])

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 409, 429} and 200 in statuses
    assert site.json("image", {"z": ORIGIN})[0] == 200


def test_a_flood_is_cut_off_and_over_when_it_ends(site, monkeypatch):
    monkeypatch.setattr("vae_cli.exploring.guard.MOST_REQUESTS", 3)
    answers = [site.json("image", {"z": ORIGIN}) for _ in range(12)]
    assert 429 in [status for status, _ in answers]
    monkeypatch.undo()
    assert site.json("image", {"z": ORIGIN})[0] == 200


def test_silent_and_slow_connections_are_closed_and_the_page_answers_again(site, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.4)
    with ExitStack() as stack:
        address = ("127.0.0.1", site.port)
        silent = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(40)]
        silent[0].sendall(b"GET / HT")
        assert site.ask("", method="GET")[0] == 503
        began = time.monotonic()
        for _ in range(3):  # bytes that arrive one at a time gain nothing
            time.sleep(0.1)
            silent[0].sendall(b"T")
        assert [connection.recv(1) for connection in silent] == 40 * [b""]
        assert time.monotonic() - began < 3 and site.ask("", method="GET")[0] == 200


def test_a_refused_connection_is_closed_and_one_of_the_page_stays_until_a_header_is_begun(site, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    ask = "GET /{}/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as connection:
        connection.sendall(ask.format("another").encode())
        assert b" 404 " in b"".join(iter(lambda: connection.recv(1 << 16), b""))
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    for _ in range(2):
        connection.request("POST", "/a-secret/image", json.dumps({"z": ORIGIN}), {"Content-Type": "application/json"})
        assert connection.getresponse().read()
        time.sleep(0.5)
    connection.sock.sendall(b"GET ")
    assert connection.sock.recv(1) == b""
    connection.close()


def test_a_port_in_use_is_refused_with_the_fix():
    with server.bind(None) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port={port} cannot be had .*; choose another, or leave port out"):
            server.bind(port)
        assert taken.getsockname()[0] == "127.0.0.1"


def test_answers_on_one_connection_do_not_wait_for_the_acknowledgement_of_the_one_before(site):
    connection, waits = http.client.HTTPConnection("127.0.0.1", site.port, timeout=20), []
    for _ in range(15):
        began = time.perf_counter()
        connection.request("POST", "/a-secret/image", json.dumps({"z": ORIGIN}), {"Content-Type": "application/json"})
        assert connection.getresponse().read()
        waits.append(time.perf_counter() - began)
    connection.close()
    assert min(waits[1:]) < 0.03  # Linux acknowledges 40 ms later


def test_answers_are_json_without_nan(site):
    for name, body in (("image", {"z": [1e6] * 4}), ("neighbours", {"z": [-1e6] * 4})):
        status, _, content = site.ask(name, body)
        assert status == 200 and json.loads(content, parse_constant=pytest.fail)
