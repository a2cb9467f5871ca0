"""A real S3 server (moto's) on loopback, with a log of what was asked and a hand on what it answers."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qs

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

FORBIDDEN = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>secret-in-the-answer</Message></Error>"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    range: str

    @property
    def is_object_get(self):
        """Whether it asked for an object's content, and not for a list."""
        return self.method == "GET" and self.path.count("/") > 1 and "list-type" not in parse_qs(self.query)


class _Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class S3Server:
    """`log` holds the requests, and `bucket` is the test's.

    `intervene(request)` may return "forbid", "fail", "cut" or "garble", or do anything.
    """

    def __init__(self):
        self.log = []
        self.authorizations = []
        self.bucket = ""
        self.intervene = lambda request: None
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()

    @cached_property
    def client(self):
        """An independent client: boto3."""
        account = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
        return boto3.client("s3", endpoint_url=self.url, **account)

    @property
    def environment(self):
        """What a user sets for this server and an account there."""
        return {
            "S3_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "very-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def begin_bucket(self):
        """Make an empty `bucket`, and empty the log."""
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=self.bucket)
        self.log.clear()

    def object_gets(self):
        return [request for request in self.log if request.is_object_get]

    def _answer(self, environ, start_response):
        request = Request(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"], environ.get("HTTP_RANGE", "")
        )
        self.log.append(request)
        self.authorizations.append(environ.get("HTTP_AUTHORIZATION", ""))
        what = self.intervene(request)
        if what == "forbid":
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"" if request.method == "HEAD" else FORBIDDEN]
        if what == "fail":
            start_response("503 Slow Down", [])
            return [b""]
        body = b"".join(self._app(environ, start_response))
        if what == "garble":
            return [body[::-1]]
        # werkzeug has sent the whole length: what is missing is a connection that breaks.
        return [body[: len(body) // 2]] if what == "cut" else [body]
