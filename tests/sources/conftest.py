"""What tests of sources share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Where conversions are kept."""
    return tmp_path / "cache"
