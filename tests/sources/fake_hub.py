"""A small HTTP server that stands for the Hugging Face Hub, after what the real one answers.

It speaks the parts that huggingface_hub uses: model info, refs, tree, and `resolve` with ETag and Range. Files in
LFS are redirected to another host name, like the real Hub's CDN. No part of it is shared with the program.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pth", ".model")


@dataclass
class Repo:
    """Commits (full sha -> path -> bytes), and what points at them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    tokens: set[str] = field(default_factory=set)

    def resolve(self, revision: str) -> str | None:
        """Return the full commit of a branch, a tag or the beginning of a commit."""
        named = self.branches.get(revision) or self.tags.get(revision)
        if named:
            return named
        fitting = [sha for sha in self.commits if len(revision) >= 7 and sha.startswith(revision)]
        return fitting[0] if len(fitting) == 1 else None


class FakeHub:
    """The server. `requests` counts "METHOD path", `sent` the body bytes of each file's path."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.ranges: list[tuple[str, str]] = []
        self.tokens_seen: set[tuple[str, str]] = set()
        self.cuts: dict[str, int] = {}
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def cdn_url(self) -> str:
        """The same server under another name, for the files in LFS."""
        return f"http://localhost:{self._server.server_port}/cdn"

    def close(self) -> None:
        """Stop answering; further connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def repo(self, name: str, **options: object) -> Repo:
        """Make an empty repository, or return the one that is there."""
        return self.repos.setdefault(name, Repo(**options))  # type: ignore[arg-type]

    def commit(self, name: str, files: dict[str, bytes], *, branch: str = "main", tag: str | None = None) -> str:
        """Put a commit with exactly these files on a branch, and return its sha."""
        repo = self.repo(name)
        content = b"".join(path.encode() + hashlib.sha1(data).digest() for path, data in sorted(files.items()))
        sha = hashlib.sha1(f"{name}{len(repo.commits)}".encode() + content).hexdigest()
        repo.commits[sha] = dict(files)
        repo.branches[branch] = sha
        if tag:
            repo.tags[tag] = sha
        return sha

    def cut_once(self, path: str, after: int) -> None:
        """Break the connection once, after that many bytes of the file `path`."""
        self.cuts[path] = after

    def fetched(self) -> set[str]:
        """Return the paths of which any byte was sent."""
        return {path for path, count in self.sent.items() if count}


def git_oid(data: bytes) -> str:
    """Return the id that Git gives a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def is_lfs(path: str) -> bool:
    """Say whether the Hub would keep the file in LFS."""
    return path.endswith(LFS_SUFFIXES)


def _handler_of(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0, the default, closes each connection, so that a closed hub is really gone.
    hub: FakeHub

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        host = self.headers["Host"].partition(":")[0]
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        with self.hub.lock:
            self.hub.requests[f"{self.command} {path}"] += 1
            if token:
                self.hub.tokens_seen.add((host, token))
        for pattern, method in _ROUTES:
            if match := pattern.fullmatch(path):
                method(self, token=token, **match.groupdict())
                return
        self._fail(404, "EntryNotFound")

    def _allowed(self, name: str, token: str, *, files: bool) -> Repo | None:
        """Return the repository, or answer why not. The Hub hides that a private one exists."""
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and token not in repo.tokens):
            self._fail(404 if token else 401, "RepoNotFound")
        elif files and repo.gated and token not in repo.tokens:
            self._fail(403 if token else 401, "GatedRepo")
        else:
            return repo
        return None

    def _commit(self, repo: Repo, revision: str) -> str | None:
        sha = repo.resolve(revision)
        if sha is None:
            self._fail(404, "RevisionNotFound")
        return sha

    def _info(self, repo: str, revision: str | None = None, *, token: str) -> None:
        found = self._allowed(repo, token, files=False)
        sha = self._commit(found, revision or "main") if found else None
        if found and sha:
            siblings = [_sibling(path, data, "blobs" in self.path) for path, data in found.commits[sha].items()]
            self._json({"id": repo, "modelId": repo, "sha": sha, "gated": found.gated, "siblings": siblings})

    def _refs(self, repo: str, *, token: str) -> None:
        found = self._allowed(repo, token, files=False)
        if found:
            heads = [_ref(name, "heads", sha) for name, sha in found.branches.items()]
            tags = [_ref(name, "tags", sha) for name, sha in found.tags.items()]
            self._json({"branches": heads, "tags": tags, "converts": []})

    def _tree(self, repo: str, revision: str, *, token: str) -> None:
        found = self._allowed(repo, token, files=False)
        sha = self._commit(found, revision) if found else None
        if found and sha:
            self._json([_tree_entry(path, data) for path, data in found.commits[sha].items()])

    def _resolve(self, repo: str, revision: str, path: str, *, token: str) -> None:
        found = self._allowed(repo, token, files=True)
        sha = self._commit(found, revision) if found else None
        if not found or not sha:
            return
        data = found.commits[sha].get(path)
        if data is None:
            self._fail(404, "EntryNotFound", {"X-Repo-Commit": sha})
        elif is_lfs(path):
            self._redirect(repo, sha, path, data)
        else:
            self._send_file(path, data, {"ETag": f'"{git_oid(data)}"', "X-Repo-Commit": sha})

    def _redirect(self, repo: str, sha: str, path: str, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        self.send_response(302)
        self.send_header("Location", f"{self.hub.cdn_url}/{repo}/{sha}/{path}")
        self.send_header("X-Repo-Commit", sha)
        self.send_header("X-Linked-Size", str(len(data)))
        self.send_header("X-Linked-Etag", f'"{digest}"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _cdn(self, repo: str, revision: str, path: str, *, token: str) -> None:
        data = self.hub.repos[repo].commits[revision][path]
        self._send_file(path, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"'})

    def _send_file(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(wanted[1]), int(wanted[2] or len(data))) if wanted else (0, len(data))
        part = data[first : last + 1]
        self.send_response(206 if wanted else 200)
        if wanted:
            self.hub.ranges.append((path, wanted[0]))
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command == "GET":
            self._send_body(path, part)

    def _send_body(self, path: str, part: bytes) -> None:
        with self.hub.lock:
            cut = self.hub.cuts.pop(path, None)
            sent = part if cut is None else part[:cut]
            self.hub.sent[path] += len(sent)
        self.wfile.write(sent)

    def _fail(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._json({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _json(self, content: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


_REPO = r"(?P<repo>[^/]+(?:/[^/]+)??)"
_ROUTES = [
    (re.compile(rf"/api/models/{_REPO}/refs"), _Handler._refs),
    (re.compile(rf"/api/models/{_REPO}/tree/(?P<revision>.+)"), _Handler._tree),
    (re.compile(rf"/api/models/{_REPO}/revision/(?P<revision>.+)"), _Handler._info),
    (re.compile(rf"/api/models/{_REPO}"), _Handler._info),
    (re.compile(rf"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"), _Handler._resolve),
    (re.compile(rf"/cdn/{_REPO}/(?P<revision>[0-9a-f]{{40}})/(?P<path>.+)"), _Handler._cdn),
]


def _lfs(path: str, data: bytes, key: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    return {"lfs": {key: digest, "size": len(data), "pointerSize": 134}} if is_lfs(path) else {}


def _sibling(path: str, data: bytes, metadata: bool) -> dict[str, object]:
    if not metadata:
        return {"rfilename": path}
    return {"rfilename": path, "size": len(data), "blobId": git_oid(data), **_lfs(path, data, "sha256")}


def _tree_entry(path: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(data), "oid": git_oid(data), **_lfs(path, data, "oid")}


def _ref(name: str, kind: str, sha: str) -> dict[str, str]:
    return {"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha}
