"""A server of files for downloads, on this machine."""

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files` by name, or `page` in place of all, or with `cut` the first half of each; keeps their names in
    `requested`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files = {}
        self.page = None
        self.cut = False
        self.requested = []

    @property
    def host(self):
        return f"127.0.0.1:{self.server_port}"

    def address(self, name):
        return f"http://{self.host}/{name}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/")
        self.server.requested.append(name)
        content = self.server.page or self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[: len(content) // 2] if self.server.cut else content)

    def log_message(self, *args):
        pass


def serve():
    """Run a file server in the background."""
    return running(FileServer())


@contextlib.contextmanager
def running(server):
    """Run a server in the background."""
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
