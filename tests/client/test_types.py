"""What a type checker tells a program that uses the client."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cogsmith

PACKAGE = Path(cogsmith.__file__).parent

PROGRAM = """
import cogsmith

with cogsmith.connect("localhost:8080") as client:
    for piece in client.text("a", max_tokens=4, stop="end"):
        text: str = piece
    chances: list[float] = client.distribution("a", [" b", " c"], normalise="mean")
    client.generate("a", max_token=3)

async def main() -> int:
    async with cogsmith.connect("localhost:8080") as client:
        return (await client.generate([1], n=2).result()).ids
"""


# What only a container imports takes mypy a minute to read, and says nothing here.
CONFIG = """
[mypy]
strict = True
follow_imports = silent
[mypy-torch.*,transformers.*,numpy.*,cog.*]
follow_imports = skip
ignore_missing_imports = True
"""


@pytest.mark.slow
def test_a_users_program_is_checked(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text(CONFIG)
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    ran = subprocess.run(
        [sys.executable, "-m", "mypy", str(program)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    errors = [line for line in ran.stdout.splitlines() if " error: " in line]
    assert [line.split(": error: ")[1].split('"')[1] for line in errors] == ["max_token", "tuple[int, ...]"], ran.stdout


def test_the_package_says_that_it_has_types():
    assert (PACKAGE / "py.typed").is_file()
