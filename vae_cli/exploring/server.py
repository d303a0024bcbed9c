"""The server of the page: its routes, its bounds, and its life from the first request to Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from vae_cli.errors import ConfigError, UserError, describe, one_line
from vae_cli.exploring import page, requests
from vae_cli.exploring.explorer import Explorer
from vae_cli.exploring.guard import Guard
from vae_cli.exploring.requests import BadRequest
from vae_cli.exploring.views import Views, Work

ADDRESS = "127.0.0.1"
LARGEST_BODY = 1 << 16  # bytes of JSON
LARGEST_FILE = 20 << 20  # bytes of a picture
SECONDS = 30.0  # for a body to arrive
HEADER_SECONDS = 5.0  # for the header of a request to arrive
MOST_WAITING = 8  # requests that wait for the model
MOST_UPLOADS = 2  # files that are being received
MOST_CONNECTIONS = 32


class ModelQueue:
    """Queue of computations: one runs at a time, and few wait.

    Of views, which are drawn again and again while the hand moves, only the newest of a kind is computed.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.waiting = 0
        self.newest: Counter[str] = Counter()

    async def run(self, kind: str, is_view: bool, work: Work) -> Response:
        """Return the answer of some work in a thread; 409 if a newer view was asked for, 429 if too many wait."""
        self.newest[kind] += 1
        number = self.newest[kind]
        if self.waiting >= MOST_WAITING:
            return refused(429, "too many requests at once")
        self.waiting += 1
        try:
            async with self.lock:
                if is_view and number != self.newest[kind]:
                    return refused(409, "a newer request has taken its place")
                return JSONResponse(await run_in_threadpool(work))
        except UserError as error:
            return refused(400, str(error))
        except Exception as error:
            return refused(500, one_line(error))
        finally:
            self.waiting -= 1


def application(explorer: Explorer, token: str, source: str, reason: str = "") -> ASGIApp:
    """Return the server of a model's page.

    Args:
        explorer: the model.
        token: the first part of every path.
        source: the checkpoint, as a person names it.
        reason: why there are no test images.
    """
    queue, uploads, views = ModelQueue(), asyncio.Semaphore(MOST_UPLOADS), Views(explorer)

    def view(name: str, prepare: Callable[[dict[str, Any]], Work], is_view: bool = True) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                content = await read_body(request, "application/json", LARGEST_BODY)
                work = prepare(requests.read_json(content))
            except BadRequest as error:
                return refused(400, str(error))
            except TooLarge as error:
                return refused(413, str(error))
            return await queue.run(name, is_view, work)

        return Route(f"/{token}/{name}", endpoint, methods=["POST"])

    async def encode(request: Request) -> Response:
        if uploads.locked():
            return refused(429, "too many files at once")
        try:
            options = requests.read_json(request.headers.get("x-options", "{}").encode("latin-1"))
            y, invert = requests.label(options, "label", views.classes), options.get("invert") is True
            async with uploads:
                data = await read_body(request, "application/octet-stream", LARGEST_FILE)
        except BadRequest as error:
            return refused(400, str(error))
        except TooLarge as error:
            return refused(413, str(error))
        return await queue.run("encode", False, lambda: explorer.encode(data, y, invert))

    async def show(request: Request) -> Response:
        nonce = secrets.token_urlsafe(16)
        text = page.render(explorer, source, nonce, reason)
        return HTMLResponse(text, headers={"Content-Security-Policy": page.policy(nonce)})

    routes = [
        Route(f"/{token}/", show, methods=["GET"]),
        Route(f"/{token}/encode", encode, methods=["POST"]),
        *(view("image", views.image), view("walk", views.walk)),
        *(view("points", views.points), view("neighbours", views.neighbours)),
        *(view("draw", views.draw, is_view=False), view("test", views.test, is_view=False)),
    ]
    return Guard(Starlette(routes=routes), token)


class TooLarge(UserError):
    """A body of more bytes than are taken."""


async def read_body(request: Request, kind: str, most: int) -> bytes:
    """Return a body of some kind, of so many bytes at most.

    Raises:
        BadRequest: for another kind, and for a body that does not arrive.
        TooLarge: for more bytes, of which the rest is not read.
    """
    if request.headers.get("content-type") != kind:
        raise BadRequest(f"the body has to be {kind}")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > most:
        raise _too_large(most)

    async def collect() -> bytes:
        content = bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > most:
                raise _too_large(most)
        return bytes(content)

    try:
        return await asyncio.wait_for(collect(), SECONDS)
    except (asyncio.TimeoutError, ClientDisconnect) as error:
        raise BadRequest("the body did not arrive") from error


def _too_large(most: int) -> TooLarge:
    size = f"{most >> 20} MB" if most >> 20 else f"{most >> 10} KB"
    return TooLarge(f"more than {size} are not taken: make it smaller")


def refused(status: int, reason: str) -> JSONResponse:
    """Return an answer that says in one line what was wrong."""
    return JSONResponse({"error": reason}, status)


def bind(port: int | None) -> socket.socket:
    """Return a socket on this machine's own address.

    Args:
        port: None and 0 take any that is free.

    Raises:
        ConfigError: if the port cannot be had.
    """
    # Only of a socket whose protocol is named does asyncio switch off Nagle's delay, which is 40 ms an answer.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # where this frees a port that was just left; on Windows it would share one in use
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((ADDRESS, port or 0))
        bound.listen(MOST_CONNECTIONS)
    except OSError as error:
        bound.close()
        raise ConfigError(
            f"port={port} cannot be had ({describe(error)}); choose another, or leave port out"
        ) from error
    return bound


class PromptProtocol(H11Protocol):
    """HTTP/1.1 whose connections are closed if a request's header does not arrive within `HEADER_SECONDS`.

    Else another program could fill all connections with silence. The first header's time runs from the opening of the
    connection, that of a later one from its first byte; bytes that arrive one at a time gain nothing.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a new connection."""
        super().connection_made(transport)  # type: ignore[arg-type]
        self._deadline = self._start()

    def data_received(self, data: bytes) -> None:
        """Take bytes of a request."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._deadline.cancel()
        elif self._deadline.cancelled():
            self._deadline = self._start()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of a connection that is closed."""
        self._deadline.cancel()
        super().connection_lost(exc)

    def _start(self) -> asyncio.TimerHandle:
        return self.loop.call_later(HEADER_SECONDS, self.timeout_keep_alive_handler)


def server(app: ASGIApp) -> uvicorn.Server:
    """Return the uvicorn server; it runs until a signal ends it, and then raises that signal again."""
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        lifespan="off",
        ws="none",
        http=PromptProtocol,
        loop="asyncio",
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=1,
        server_header=False,
    )
    return uvicorn.Server(config)
