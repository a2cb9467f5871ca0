"""The package as a whole: its public names, and what it drags in."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from cogsmith import lmtp


def test_all_names_what_the_package_imports():
    tree = ast.parse(Path(lmtp.__file__).read_text())
    imported = {
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert set(lmtp.__all__) == imported
    assert all(hasattr(lmtp, name) for name in lmtp.__all__)


def test_every_message_is_public():
    messages = {kind.__name__ for side in (lmtp.AnyOperation, lmtp.AnyReply) for kind in side.__args__}
    assert messages <= set(lmtp.__all__)


def test_it_travels_light():
    probe = "import sys, cogsmith.lmtp; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    ours = {name for name in loaded if name.startswith("cogsmith.")}
    assert {name for name in ours if not name.startswith("cogsmith.lmtp")} == {"cogsmith.errors"}
    assert not {"torch", "numpy", "transformers", "pydantic", "httpx2"} & set(loaded)


def test_messages_are_frozen():
    message = lmtp.TokenError(stream_id=1, error="x")
    with pytest.raises(AttributeError):
        message.error = "y"
    assert msgspec.structs.replace(message, error="y").error == "y"
