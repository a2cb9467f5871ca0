"""Stores on loopback, and an environment without anybody's own accounts."""

from __future__ import annotations

import os

import pytest
from tenacity import wait_none

from cogsmith.sources.stores import download

from .s3_server import S3Server
from .web_server import WebFiles

PREFIXES = ("AWS_", "S3_", "GCS_", "GOOGLE_", "AZURE_", "OCI_", "OCIFS_", "STORAGE_EMULATOR")


@pytest.fixture(autouse=True)
def _nobody(monkeypatch, tmp_path):
    for name in os.environ:
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(download, "WAIT", wait_none())


@pytest.fixture(scope="session")
def running_s3():
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3(running_s3, monkeypatch):
    """The server, with this test's account in the environment, an empty log, and a bucket of its own in `bucket`."""
    for name, value in running_s3.environment.items():
        monkeypatch.setenv(name, value)
    running_s3.begin_bucket()
    yield running_s3
    running_s3.intervene()


@pytest.fixture
def web():
    server = WebFiles()
    yield server
    server.close()
