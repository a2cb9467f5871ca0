"""The official clients, each in an environment of its own, told to take a gateway for the service."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import environments, peer

CLIENTS = ["replicate-1.0.7", "replicate-2.0.0b4", "javascript"]


@contextmanager
def running(name: str, url: str, kept: Path, *, token: str = "r8_any") -> Iterator[peer.Peer]:
    """Start a client before the gateway at `url`; environments are `kept` in a folder."""
    variables = {"REPLICATE_BASE_URL": url, "REPLICATE_API_TOKEN": token, "REPLICATE_POLL_INTERVAL": "0.02"}
    if name == "javascript":
        program, packages = environments.node(kept)
        command = [program, "run_replicate_js.cjs"]
        variables["NODE_PATH"] = str(packages)
    else:
        major = name.removeprefix("replicate-")[0]
        command = [environments.python(name, kept), f"run_replicate_{major}.py"]
    with peer.running(*command, variables=variables) as started:
        started.name = name
        yield started
