"""A small web server on loopback that can cut connections, forget ranges, and change its files."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class WebFiles:
    """Serves `files` by path. `cuts` are byte positions: the next answer that passes one ends there, once.

    `ranges`, `head`, `etags`, `lengths` switch off what a server may not have. `redirects` map paths to addresses.
    `refuses_ranges` answers 416 to one that begins further on. `md5` is sent as it stands. `wrong_parts` sends another
    range than is asked for, and `surplus` follows it all.
    """

    def __init__(self):
        self.files = {}
        self.cuts = []
        self.on_cut = lambda: None
        self.log = []
        self.statuses = {}
        self.redirects = {}
        self.md5, self.wrong_parts, self.surplus, self.refuses_ranges = None, False, b"", False
        self.ranges = self.head = self.etags = self.lengths = True
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"site": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def gets(self):
        return [range_ for method, _, range_ in self.log if method == "GET"]

    def etag(self, content):
        return f'"{hashlib.sha256(content).hexdigest()[:16]}"'


class _Handler(BaseHTTPRequestHandler):
    site = None

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        if self.site.head:
            self._answer(body=False)
        else:
            self.send_error(405)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, *, body):
        site, path = self.site, self.path.partition("?")[0]
        site.log.append((self.command, self.path, self.headers.get("Range")))
        if path in site.redirects:
            self.send_response(302)
            self.send_header("Location", site.redirects[path])
            self.end_headers()
        elif site.refuses_ranges and not (self.headers.get("Range") or "bytes=0-").startswith("bytes=0-"):
            self.send_error(416)
        elif status := site.statuses.get(path) or (path not in site.files and 404):
            self.send_error(status)
        else:
            self._send(site.files[path], body=body)

    def _send(self, content, *, body):
        site = self.site
        start, end = self._asked(content)
        if start and site.wrong_parts:
            start = 1
        self.send_response(200 if start is None else 206)
        if start is not None:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        if site.etags:
            self.send_header("ETag", site.etag(content))
        if site.md5:
            self.send_header("Content-MD5", site.md5)
        start = start or 0
        if site.lengths and not (body and site.surplus):
            self.send_header("Content-Length", str(end - start))
        self.end_headers()
        if body:
            self._write(content, start, end)

    def _write(self, content, start, end):
        stop = next((cut for cut in self.site.cuts if start <= cut < end), None)
        if stop is not None:
            self.site.cuts.remove(stop)
            self.site.on_cut()
        self.wfile.write(content[start : end if stop is None else stop] + self.site.surplus)
        self.close_connection = True

    def _asked(self, content):
        """Return the range that is asked for; None and the end where the whole is to be sent."""
        asked = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        if not (asked and self.site.ranges) or (condition and condition != self.site.etag(content)):
            return None, len(content)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1 if last else len(content), len(content))
