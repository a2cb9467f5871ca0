"""A real S3 server (moto's) on loopback, with a log of what was asked and a hand on what it answers.

It is a process of its own: what a test leaves behind in this one, such as threads and garbage whose clean-up waits for
a connection, cannot hold it up, nor it them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import uuid
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import boto3

HAND_SECONDS = 30


@dataclass(frozen=True)
class Request:
    """`is_object_get` is whether it asked for an object's content, and not for a list."""

    method: str
    path: str
    query: str
    range: str
    authorization: str
    is_object_get: bool


@dataclass(frozen=True)
class Rule:
    """What to do with a request that fits: `what` is "forbid", "fail", "cut", "garble", or nothing for S3's answer.

    `method` and `path` are patterns as of a shell, `range` is how the header begins. `times` is how often, or 0.
    Before the answer the server waits, a while at most, for `after_gets` objects that were asked for and for the file
    `after_file` (a pattern, ** for folders), and puts the object `put` (put_object's arguments).
    """

    what: str = ""
    method: str = "*"
    path: str = "*"
    range: str = ""
    object_gets: bool = False
    times: int = 0
    after_gets: int = 0
    after_file: str = ""
    put: dict | None = None


class S3Server:
    """`log` holds the requests, and `bucket` is the test's.

    `intervene(rules)` says what the server does about requests, `intervene()` that it does nothing.
    """

    def __init__(self):
        self.bucket = ""
        script = Path(__file__).with_name("s3_process.py")
        self._process = subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

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
        """Make an empty `bucket`, let the server do as it does, and empty the log."""
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=self.bucket)
        self.intervene()
        self.forget()

    @property
    def log(self):
        return [Request(**request) for request in self._hand("log")]

    def forget(self):
        """Empty the log."""
        self._hand("forget", b"")

    def object_gets(self):
        return [request for request in self.log if request.is_object_get]

    def intervene(self, *rules):
        """Answer by these rules alone from now on, the first that fits."""
        self._hand("rules", json.dumps([_sendable(rule) for rule in rules]).encode())

    def rules_left(self):
        """How many rules have not been used as often as they were to be."""
        return len(self._hand("rules"))

    def _hand(self, word, sent=None):
        with urllib.request.urlopen(f"{self.url}/_hand/{word}", sent, HAND_SECONDS) as answer:
            return json.load(answer)


def _sendable(rule):
    put = rule.put and rule.put | {"Body": rule.put["Body"].hex()}
    return asdict(rule) | {"put": put}
