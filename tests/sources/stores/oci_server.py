"""A stand-in for Oracle's Object Storage on loopback: the calls that ocifs makes, as its API reference has them.

https://docs.oracle.com/en-us/iaas/api/#/en/objectstorage/20160918/
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

DAY = "2026-01-01T00:00:00.000Z"
_PLACE = re.compile(r"/n/(?P<namespace>[^/]+)/b/(?P<bucket>[^/]+)(/o(/(?P<key>.+))?)?")


class OciServer:
    """`buckets` hold content by key, under (namespace, bucket). `refuse` makes every answer 401."""

    def __init__(self):
        self.buckets = {}
        self.log = []
        self.authorizations = []
        self.refuse = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store = None

    def log_message(self, *_):
        pass

    def do_GET(self):
        address = urlsplit(self.path)
        place = _PLACE.fullmatch(address.path)
        self.store.log.append((self.command, unquote(address.path), self.headers.get("Range")))
        self.store.authorizations.append(self.headers.get("Authorization", ""))
        objects = self.store.buckets.get((place["namespace"], place["bucket"])) if place else None
        if self.store.refuse:
            self._fail(401, "NotAuthenticated")
        elif objects is None:
            self._fail(404, "BucketNotFound")
        elif place["key"]:
            self._object(objects, unquote(place["key"]))
        elif address.path.endswith("/o"):
            self._list(objects, parse_qs(address.query))
        else:
            self._send(200, b"{}", etag="bucket")

    do_HEAD = do_PUT = do_DELETE = do_GET

    def _object(self, objects, key):
        if self.command == "PUT":
            objects[key] = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(200, b"", etag=_etag(objects[key]))
        elif key not in objects:
            self._fail(404, "ObjectNotFound")
        elif self.command == "DELETE":
            del objects[key]
            self._send(204, b"")
        else:
            self._content(objects[key])

    def _content(self, content):
        facts = {"etag": _etag(content), "last-modified": "Thu, 01 Jan 2026 00:00:00 GMT", "accept-ranges": "bytes"}
        facts |= {"version-id": "1", "storage-tier": "Standard"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        if asked:
            part = content[int(asked[1]) : int(asked[2]) + 1]
            self._send(206, part, **facts, **{"content-range": f"bytes {asked[1]}-{asked[2]}/{len(content)}"})
        else:
            self._send(200, content, **facts)

    def _list(self, objects, query):
        prefix, delimiter = query.get("prefix", [""])[0], query.get("delimiter", [""])[0]
        names = sorted(name for name in objects if name.startswith(prefix))
        deeper = {name for name in names if delimiter and delimiter in name[len(prefix) :]}
        prefixes = sorted({prefix + name[len(prefix) :].split(delimiter)[0] + delimiter for name in deeper})
        listed = [_described(name, objects[name]) for name in names if name not in deeper]
        self._send(200, json.dumps({"objects": listed, "prefixes": prefixes}).encode())

    def _fail(self, status, code):
        self._send(status, json.dumps({"code": code, "message": "secret-in-the-answer"}).encode())

    def _send(self, status, body, **facts):
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "opc-request-id": "1", **facts}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _described(name, content):
    digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
    facts = {"name": name, "size": len(content), "md5": digest, "etag": _etag(content)}
    return {**facts, "timeCreated": DAY, "timeModified": DAY, "storageTier": "Standard"}


def _etag(content):
    return hashlib.sha256(content).hexdigest()[:36]
