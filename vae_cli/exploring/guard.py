"""Checks of every request before it is answered: host, origin, token and rate; and the headers of every answer."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]+)?")  # of any port, so that one may be passed on by ssh
MOST_REQUESTS = 300  # a second; a moved hand makes at most one at a time
HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class Guard:
    """An ASGI application that lets through what the page at its secret address asks for, and nothing else.

    A name that an attacker's server resolves to this machine is refused by the Host header, another page in the same
    browser by the Origin header, and another program of this machine by the token.

    Args:
        app: the application that answers the requests that pass.
        token: the first part of every path.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.token = app, token
        self.second, self.requests = 0, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                extra = (
                    HEADERS if b"content-security-policy" in names else HEADERS | {"Content-Security-Policy": NOTHING}
                )
                message["headers"] += [(name.lower().encode(), value.encode()) for name, value in extra.items()]
            await send(message)

        refusal = self._refusal(scope)
        answer: ASGIApp = self.app
        if refusal is not None:
            status, reason = refusal
            answer = JSONResponse({"error": reason}, status, {"Connection": "close"})  # it holds no place for others
        await answer(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Return the status and the reason with which a request is refused, if it is."""
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        host, origin = headers.get("host", []), headers.get("origin", [])
        if len(host) != 1 or HOST.fullmatch(host[0]) is None:
            return 403, "this server answers only at 127.0.0.1 and localhost"
        site = headers.get("sec-fetch-site", ["none"])
        if origin not in ([], [f"http://{host[0]}"]) or not (
            site in (["none"], ["same-origin"]) or _opens_page(scope, headers)
        ):
            return 403, "this server answers its own page only"
        token = scope["path"].partition("/")[2].partition("/")[0]  # the path of `OPTIONS *` has no slash
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return 404, "nothing is here: use the whole address that vae-explore printed"
        now = int(time.monotonic())
        self.requests = self.requests + 1 if now == self.second else 1
        self.second = now
        return (429, "too many requests a second") if self.requests > MOST_REQUESTS else None


def _opens_page(scope: Scope, headers: Mapping[str, list[str]]) -> bool:
    """Return whether a request follows a link to the page in a tab of its own; the token guards it."""
    is_page = scope["method"] == "GET" and scope["path"].count("/") == 2 and scope["path"].endswith("/")
    navigates = headers.get("sec-fetch-mode") == ["navigate"]
    return is_page and navigates and headers.get("sec-fetch-dest", ["document"]) == ["document"]
