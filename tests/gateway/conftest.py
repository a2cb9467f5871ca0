"""A gateway that tests share."""

from __future__ import annotations

import httpx2
import pytest
from anyio.from_thread import start_blocking_portal

from .stand_in import gateway


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """Nothing is kept from one test to the next."""
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def api():
    """A client of a gateway that the tests share which leave nothing behind."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(gateway()) as local,
        httpx2.Client(base_url=local.http.base_url, trust_env=False) as client,
    ):
        yield client
