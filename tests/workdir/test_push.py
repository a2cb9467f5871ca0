"""The push script, with a `cog` that only notes how it was called."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

FAKE_COG = '#!/bin/sh\nprintf "%s\\n" "$PWD" "${COG_PUSH_OCI-unset}" "$@" > "$RECORD"\nexit "${COG_EXIT:-0}"\n'


@pytest.fixture
def push(workshop, tmp_path):
    """Return a function that runs the push script of a fresh build from another folder."""

    def run(*arguments: str, prefix: str | None = "r8.im/me/", cog: bool = True, weights: bool = True, **env: str):
        workshop.prefix = prefix
        workshop.add("tiny")
        workshop.build()
        folder = workshop.folder("tiny")
        if not weights:
            (folder / "checkpoints").rename(tmp_path / "taken")
        tools = tmp_path / "bin"
        tools.mkdir()
        if cog:
            (tools / "cog").write_text(FAKE_COG)
            (tools / "cog").chmod(0o755)
        for name in ("dirname", "sh"):
            (tools / name).symlink_to(f"/usr/bin/{name}")
        record = tmp_path / "record"
        environment = {"PATH": str(tools), "RECORD": str(record), **env}
        done = subprocess.run(
            [folder / "push", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        return done, record.read_text().splitlines() if record.exists() else None, folder

    return run


def test_pushes_from_its_own_folder_with_separate_weights(push):
    done, called, folder = push("--progress", "plain text")
    assert done.returncode == 0
    assert called == [
        os.path.realpath(folder),
        "1",
        "push",
        "r8.im/me/tiny",
        "--separate-weights",
        "--progress",
        "plain text",
    ]


def test_keeps_the_users_choice_of_upload(push):
    assert push(COG_PUSH_OCI="0")[1][1] == "0"


def test_reports_what_cog_reports(push):
    assert push(COG_EXIT="7")[0].returncode == 7


@pytest.mark.parametrize(
    ("circumstances", "words"),
    [
        ({"prefix": None}, "dest_prefix"),
        ({"prefix": "r8.im/YOURACCOUNT/"}, "dest_prefix"),
        ({"weights": False}, "checkpoints/"),
        ({"cog": False}, "cog is not installed"),
    ],
)
def test_refuses_with_the_fix(push, circumstances, words):
    done, called, _ = push(**circumstances)
    assert done.returncode == 1
    assert words in done.stderr
    assert called is None


def test_is_plain_posix_shell(folder: Path):
    subprocess.run(["sh", "-n", folder / "push"], check=True)
