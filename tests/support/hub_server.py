"""A server on this machine that speaks as much of the Hugging Face Hub's protocol as uploads and downloads need."""

import base64
import contextlib
import hashlib
import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.file_server import running

TOKEN, OTHER = "hf_owner", "hf_other"  # of the user `owner`, and of another one


class HubServer(ThreadingHTTPServer):
    """Keeps repositories as lists of commits, each a dictionary of files; and the requests it has had."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos, self.private, self.uploads, self.requested = {}, {}, {}, []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def add(self, repo, files, private=False):
        """Make a repository, or a commit in it; return the commit's name."""
        commits = self.repos.setdefault(repo, {})
        latest = [*commits.values()][-1] if commits else {}
        name = hashlib.sha1(f"{repo} {len(commits)}".encode()).hexdigest()  # noqa: S324
        commits[name] = latest | files
        self.private.setdefault(repo, private)
        return name

    def files(self, repo):
        return [*self.repos[repo].values()][-1]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self._answer("HEAD")

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_PUT(self):
        self._answer("PUT")

    def _answer(self, method):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requested.append(f"{method} {path}")
        for pattern, function in ROUTES:
            if match := re.fullmatch(pattern, f"{method} {path}"):
                function(self, body, **match.groupdict())
                return
        self.send(404, {"error": "no such page"})

    @property
    def user(self):
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        return {TOKEN: "owner", OTHER: "other"}.get(token)

    def send(self, status, content, **headers):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

    def may_read(self, repo):
        """Answer as the Hub does where there is nothing to see: who is not logged in gets 401, others 404."""
        if repo in self.server.repos and (not self.server.private[repo] or self.user == repo.partition("/")[0]):
            return True
        if self.user is None:
            self.send(401, {"error": "Invalid username or password."}, X_Error_Message="Invalid username or password.")
        else:
            self.send(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return False

    def may_write(self, owner):
        if self.user == owner:
            return True
        status = 401 if self.user is None else 403
        self.send(status, {"error": "not yours"}, X_Error_Message="You don't have the rights")
        return False

    def commit_of(self, repo, revision):
        commits = self.server.repos[repo]
        if revision == "main":
            return [*commits][-1]
        found = next((name for name in commits if name.startswith(revision)), None)
        if found is None:
            self.send(404, {"error": "Revision not found"}, X_Error_Code="RevisionNotFound")
        return found

    def create(self, body):
        asked = json.loads(body)
        owner = asked.get("organization") or self.user
        if not self.may_write(owner):
            return
        repo = f"{owner}/{asked['name']}"
        if repo in self.server.repos:
            self.send(409, {"error": "You already created this model repo", "url": f"{self.server.address}/{repo}"})
            return
        self.server.add(repo, {}, asked.get("visibility") == "private" or asked.get("private", False))
        self.send(200, {"url": f"{self.server.address}/{repo}", "name": repo})

    def info(self, body, repo, revision="main"):
        if self.may_read(repo) and (commit := self.commit_of(repo, revision)):
            siblings = [{"rfilename": name} for name in self.server.repos[repo][commit]]
            found = {"id": repo, "sha": commit, "private": self.server.private[repo], "siblings": siblings}
            self.send(200, found)

    def validate(self, body):
        license = re.search(r"^license: (.*)$", json.loads(body)["content"], re.MULTILINE)
        is_known = license is None or license[1] in ("mit", "apache-2.0", "cc-by-4.0", "other")
        errors = [] if is_known else [{"message": '"license" must be one of [mit, apache-2.0, …]'}]
        self.send(200 if is_known else 400, {"errors": errors, "warnings": []})

    def preupload(self, body, repo, revision):
        if self.may_write(repo.partition("/")[0]):
            paths = [file["path"] for file in json.loads(body)["files"]]
            modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in paths}
            files = [{"path": path, "uploadMode": mode, "shouldIgnore": False} for path, mode in modes.items()]
            self.send(200, {"files": files})

    def batch(self, body, repo):
        if self.may_write(repo.partition("/")[0]):
            objects = json.loads(body)["objects"]
            for each in objects:
                each["actions"] = {"upload": {"href": f"{self.server.address}/upload/{each['oid']}"}}
            self.send(200, {"transfer": "basic", "objects": objects})

    def put(self, body, oid):
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.uploads[oid] = body
        self.send(200, b"")

    def commit(self, body, repo, revision):
        if not self.may_write(repo.partition("/")[0]):
            return
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.uploads[value["oid"]]
        name = self.server.add(repo, files)
        self.send(200, {"commitUrl": f"{self.server.address}/{repo}/commit/{name}", "commitOid": name, "success": True})

    def resolve(self, body, repo, revision, file):
        if not self.may_read(repo) or not (commit := self.commit_of(repo, revision)):
            return
        content = self.server.repos[repo][commit].get(file)
        if content is None:
            self.send(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        digest = hashlib.sha256(content).hexdigest()
        self.send(200, content, X_Repo_Commit=commit, ETag=f'"{digest}"', Accept_Ranges="bytes")

    def log_message(self, *args):
        pass


REPO = r"(?P<repo>[\w.-]+/[\w.-]+?)"
ROUTES = [
    (r"POST /api/repos/create", _Handler.create),
    (r"POST /api/validate-yaml", _Handler.validate),
    (rf"GET /api/models/{REPO}", _Handler.info),
    (rf"GET /api/models/{REPO}/revision/(?P<revision>.+)", _Handler.info),
    (rf"POST /api/models/{REPO}/preupload/(?P<revision>.+)", _Handler.preupload),
    (rf"POST /api/models/{REPO}/commit/(?P<revision>.+)", _Handler.commit),
    (rf"POST /{REPO}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /upload/(?P<oid>\w+)", _Handler.put),
    (rf"(GET|HEAD) /{REPO}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler.resolve),
]


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A server that the Hub's library asks in place of the real one, with a cache of its own; nobody is logged in."""
    from huggingface_hub import constants

    with running(HubServer()) as server:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, server.address)
        monkeypatch.setattr(constants, "ENDPOINT", server.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        yield server


def log_in(monkeypatch, token=TOKEN):
    monkeypatch.setenv("HF_TOKEN", token)


def go_offline(monkeypatch):
    monkeypatch.setattr(sys.modules["huggingface_hub"].constants, "HF_HUB_OFFLINE", True)
