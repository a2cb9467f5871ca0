"""What an ENDPOINT means."""

from __future__ import annotations

import pytest

from cogsmith.client.endpoint import (
    CogServer,
    LmtpServer,
    LocalFolder,
    ReplicateDeployment,
    ReplicateModel,
    parse_endpoint,
)
from cogsmith.errors import EndpointError


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("replicate:meta/llama-3--8b", ReplicateModel("meta", "llama-3--8b")),
        ("replicate:meta/llama/0e9e39f", ReplicateModel("meta", "llama", "0e9e39f")),
        ("replicate:meta/llama:0e9e39f", ReplicateModel("meta", "llama", "0e9e39f")),
        ("replicate:deployment/acme/fast", ReplicateDeployment("acme", "fast")),
        ("http://127.0.0.1:5000", CogServer("http://127.0.0.1:5000")),
        ("https://models.example.org/cog/", CogServer("https://models.example.org/cog")),
        ("ws://[::1]:8080", LmtpServer("ws://[::1]:8080")),
        ("wss://example.org/tiny", LmtpServer("wss://example.org/tiny")),
        ("localhost:8080", LmtpServer("ws://localhost:8080")),
        ("127.0.0.1:8080", LmtpServer("ws://127.0.0.1:8080")),
    ],
)
def test_forms(text, meant):
    assert parse_endpoint(text) == meant


@pytest.mark.parametrize(
    "text", ["http://host:99999", "ws://host:abc", "http://[::1", "host:0", "host:70000", "ws://host:0/x"]
)
def test_what_is_no_port_leads_nowhere(text):
    with pytest.raises(EndpointError, match="names no host and port"):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["http://me:hidden@host:1", "wss://me:hidden@host/path", "ws://hidden@host"])
def test_an_endpoint_is_no_place_for_secrets(text):
    with pytest.raises(EndpointError, match="no password") as caught:
        parse_endpoint(text)
    assert "hidden" not in str(caught.value)


def test_a_local_folder(tmp_path):
    assert parse_endpoint(f"local:{tmp_path}") == LocalFolder(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["", "llama", "ftp://host:1", "http://", "replicate:", "replicate:llama", "replicate:a/b/c/d", "replicate:a/../b",
     "replicate:deployment/a", "host:", "host:port", "ws:", "local:", "local:no/such/folder", "localhost:8080/x y"],
)  # fmt: skip
def test_what_is_no_endpoint_is_told_the_forms(text):
    if text == "replicate:deployment/a":
        assert parse_endpoint(text) == ReplicateModel("deployment", "a")
        return
    with pytest.raises(EndpointError) as caught:
        parse_endpoint(text)
    assert text in str(caught.value)
    assert "give" in caught.value.fix
