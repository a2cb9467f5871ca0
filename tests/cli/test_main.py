"""Every end of a command: a message for a person, and an exit code."""

from __future__ import annotations

import errno
import sys

import pytest

from cogsmith.cli import console, main
from cogsmith.errors import InternalError, UserError


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line with a `cogsmith check` that raises; return the exit code and stderr."""

    def run(error: BaseException) -> tuple[object, str]:
        def fail(*_args: object) -> None:
            raise error

        monkeypatch.setattr(sys, "argv", ["cogsmith", "check"])
        # Bound when it was imported, before this test's stderr was.
        monkeypatch.setattr(console.err, "file", sys.stderr)
        monkeypatch.setattr("cogsmith.cli.check.config.load", fail)
        with pytest.raises(SystemExit) as caught:
            main.main()
        return caught.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OSError(errno.EROFS, "Read-only file system", "/x/work"), 1, "error: /x/work: Read-only file system"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "error: No space left on device"),
        (OSError(errno.EXDEV, "Invalid link", "/a", None, "/b"), 1, "error: /b: Invalid link"),
        (InternalError("we are confused"), 3, "error: we are confused"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_an_error_is_a_line_and_a_code(run, error, code, words):
    found, said = run(error)
    assert found == code
    assert words in said
    assert "Traceback" not in said


def test_a_fault_of_ours_shows_where_it_is_and_asks_for_a_report(run):
    code, said = run(KeyError("confused"))
    assert code == 3
    assert "Traceback" in said
    assert "please report it" in said


def test_a_problem_of_the_user_is_counted_by_check(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(UserError("no such thing"))[0] == 1
