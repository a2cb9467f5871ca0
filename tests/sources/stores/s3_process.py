"""A real S3 server (moto's) on loopback, run as a process of its own: python s3_process.py, then its port is told.

It ends when its standard input does, so it cannot outlive the tests. Besides S3 it answers, under /_hand/, what was
asked so far (GET log), forgets it (POST forget) and takes rules about what it answers (POST rules); see s3_server.Rule.
"""

from __future__ import annotations

import fnmatch
import glob
import json
import os
import sys
import threading
import time
import traceback
from urllib.parse import parse_qs

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

ACCOUNT = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
FORBIDDEN = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>secret-in-the-answer</Message></Error>"
WAIT_SECONDS = 20
"""The longest that an answer is held back: a request that is tried again must not wait for what has been and gone."""


class _Handler(WSGIRequestHandler):
    timeout = 60  # a connection on which nothing comes

    def log(self, *_):
        pass


def _tell_unless_left(request, address):
    """Say what went wrong in an answer; not that the client had enough of it."""
    if not isinstance(sys.exception(), ConnectionError):
        traceback.print_exc()


class Server:
    def __init__(self):
        self.log, self.rules = [], []
        self._lock = threading.Lock()
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Handler)
        self._server.handle_error = _tell_unless_left
        self.port = self._server.server_port
        self._client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", **ACCOUNT)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _answer(self, environ, start_response):
        if environ["PATH_INFO"].startswith("/_hand/"):
            return self._hand(environ, start_response)
        request = described(environ)
        with self._lock:
            self.log.append(request)
            rule = self._rule_for(request)
        if rule:
            self._hold(rule)
            if rule["put"]:
                self._client.put_object(**rule["put"] | {"Body": bytes.fromhex(rule["put"]["Body"])})
        return self._say(rule["what"] if rule else "", environ, start_response)

    def _say(self, what, environ, start_response):
        if what == "forbid":
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else FORBIDDEN]
        if what == "fail":
            start_response("503 Slow Down", [])
            return [b""]
        body = b"".join(self._app(environ, start_response))
        if what == "garble":
            return [body[::-1]]
        # werkzeug has sent the whole length: what is missing is a connection that breaks.
        return [body[: len(body) // 2]] if what == "cut" else [body]

    def _rule_for(self, request):
        """Return the first rule that fits, and count it off."""
        for rule in self.rules:
            if fits(rule, request):
                if rule["times"]:
                    rule["times"] -= 1
                    if not rule["times"]:
                        self.rules.remove(rule)
                return rule
        return None

    def _hold(self, rule):
        """Wait until so many objects were asked for, and the file is there, whatever folder it is in."""
        until = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < until and not (
            sum(request["is_object_get"] for request in list(self.log)) >= rule["after_gets"]
            and (not rule["after_file"] or glob.glob(rule["after_file"], recursive=True, include_hidden=True))
        ):
            time.sleep(0.01)

    def _hand(self, environ, start_response):
        sent = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._lock:
            word = environ["PATH_INFO"].removeprefix("/_hand/")
            if word == "forget":
                self.log.clear()
            elif word == "rules" and sent:
                self.rules[:] = json.loads(sent)
            said = json.dumps(self.log if word == "log" else self.rules).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(said)))])
        return [said]


def described(environ):
    method, path, query = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ["QUERY_STRING"]
    return {
        "method": method,
        "path": path,
        "query": query,
        "range": environ.get("HTTP_RANGE", ""),
        "authorization": environ.get("HTTP_AUTHORIZATION", ""),
        "is_object_get": method == "GET" and path.count("/") > 1 and "list-type" not in parse_qs(query),
    }


def fits(rule, request):
    return (
        fnmatch.fnmatchcase(request["method"], rule["method"])
        and fnmatch.fnmatchcase(request["path"], rule["path"])
        and request["range"].startswith(rule["range"])
        and (request["is_object_get"] or not rule["object_gets"])
    )


if __name__ == "__main__":
    sys.stdout.write(f"{Server().port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)
