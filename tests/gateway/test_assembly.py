"""What is looked at before a gateway starts anything."""

import subprocess
import sys
from pathlib import Path

import pytest

import cogsmith
from cogsmith.errors import ProblemsError, ServeError, UserError
from cogsmith.gateway.assembly import Settings, assemble
from cogsmith.gateway.server import Gateway

from .test_models import work_directory


def write_servable(folder, *, heeds_model_args=True):
    work_directory(folder)
    (folder / "cog.yaml").write_text('run: "predict.py:Predictor"\n')
    (folder / "cogsmith/manifest.py").write_text("COGSMITH_MODEL_ARGS" if heeds_model_args else "")
    return folder


def nobody(text):
    """Take what is reported, and drop it."""


def test_all_that_stands_against_serving_is_said_at_once(tmp_path):
    folders = [
        write_servable(tmp_path / "a/tiny"),
        write_servable(tmp_path / "b/tiny"),
        write_servable(tmp_path / "old", heeds_model_args=False),
    ]
    with pytest.raises(ProblemsError) as caught:
        assemble(folders, Settings(model_args={"dtype": "float32"}), nobody)
    twice, old = map(str, caught.value.problems)
    assert "2 of the models are called 'tiny'" in twice
    assert f"{tmp_path / 'old'} was built by an older Cogsmith, which does not heed dtype" in old


def test_an_old_folder_is_served_as_it_is(tmp_path):
    parts = assemble([write_servable(tmp_path / "old", heeds_model_args=False)], Settings(), nobody)
    assert parts.models.default().model.name == "old"


@pytest.mark.parametrize("value", [object(), {1, 2}, float("nan")])
def test_arguments_that_json_cannot_hold_are_refused(tmp_path, value):
    with pytest.raises(UserError, match="cannot be handed to its server"):
        assemble([write_servable(tmp_path / "tiny")], Settings(model_args={"x": value}), nobody)


def test_a_host_that_is_not_this_machine_is_refused(tmp_path):
    with pytest.raises(ServeError, match=r"port 0 on 192\.0\.2\.1 cannot be used"):
        Gateway([write_servable(tmp_path / "tiny")], Settings(host="192.0.2.1", port=0, token="sesame"), nobody)


@pytest.mark.parametrize(
    ("host", "address"), [("127.0.0.1", "127.0.0.1"), ("localhost", "localhost"), ("0.0.0.0", "127.0.0.1")]
)
def test_the_address_is_one_that_a_client_here_can_use(tmp_path, host, address):
    gateway = Gateway([write_servable(tmp_path / "tiny")], Settings(host=host, port=0, token="sesame"), nobody)
    assert gateway.url == f"http://{gateway.address}"
    name, _, port = gateway.address.partition(":")
    assert name == address
    assert int(port) > 0


def test_serve_and_connect_are_at_hand_and_imported_only_when_used():
    """In a container there is neither, and the package is imported there."""
    program = (
        "import sys, cogsmith;"
        "assert not [name for name in sys.modules if name.startswith('cogsmith.')];"
        "assert callable(cogsmith.serve) and callable(cogsmith.connect)"
    )
    environment = {"PYTHONPATH": str(Path(cogsmith.__file__).parents[1])}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, timeout=60)
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        cogsmith.nonsense  # noqa: B018 (the access is the test)
