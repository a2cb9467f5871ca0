"""A server that stands for Replicate, and the fixtures of real ones."""

import pytest

from ..e2e.conftest import served, tiny  # noqa: F401
from . import service as services


@pytest.fixture(scope="session")
def lasting_service():
    """The server, once for all tests."""
    service = services.Service()
    yield service
    service.close()


@pytest.fixture
def service(lasting_service, monkeypatch, tmp_path):
    """A server of LMTP 1.1 that has seen nothing, and which the environment points to."""
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_secret")
    monkeypatch.setenv("REPLICATE_BASE_URL", lasting_service.url)
    lasting_service.forget()
    return lasting_service


@pytest.fixture
def plain_service(service):
    """The same, of LMTP 1.0."""
    service.info = services.PLAIN
    return service


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A cache of the module's own, and a token."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COGSMITH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("REPLICATE_API_TOKEN", "r8_secret")
        yield
