"""Helpers of the config tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cogsmith.config import load
from cogsmith.errors import ConfigError, Problem


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Write a text as config.toml and return its path."""

    def write(text: str) -> Path:
        path = tmp_path / "config.toml"
        path.write_bytes(text.encode())
        return path

    return write


@pytest.fixture
def problems_of(write: Callable[[str], Path]) -> Callable[[str], tuple[Problem, ...]]:
    """Load a text as config.toml and return the problems it is refused for; none where it is accepted."""

    def problems_of(text: str) -> tuple[Problem, ...]:
        try:
            load(write(text))
        except ConfigError as error:
            return error.problems
        return ()

    return problems_of


@pytest.fixture
def assert_refused(problems_of: Callable[[str], tuple[Problem, ...]]) -> Callable[..., None]:
    """Check that a text has exactly one problem: its line, its key, words of its message and of its fix."""

    def assert_refused(text: str, line: int | None, where: str | None, message: str, fix: str) -> None:
        (problem,) = problems_of(text)
        assert (problem.line, problem.where) == (line, where)
        assert message in problem.message
        assert fix in (problem.fix or "")

    return assert_refused
