"""What is checked before a Cog server is started."""

import socket

import pytest

from cogsmith.errors import MissingPackages, ServeError
from cogsmith.gateway import cog_process
from cogsmith.manifest import Manifest


@pytest.fixture
def folder(tmp_path):
    """The part of a work directory that is read before its model is."""
    (tmp_path / "cog.yaml").write_text('build:\n  python_version: "3.11"\nrun: "predict.py:Predictor"\n')
    (tmp_path / "model.json").write_bytes(Manifest(name="m", source="s", cogsmith="0").to_json())
    (tmp_path / "requirements.txt").write_text("numpy==2.4.6\n")
    return tmp_path


def test_what_is_no_work_directory_is_refused(tmp_path):
    with pytest.raises(ServeError, match="has no cog\\.yaml"):
        cog_process.start(tmp_path)


def test_every_package_that_the_image_would_have_and_this_machine_lacks_is_named(folder):
    (folder / "requirements.txt").write_text("numpy==2.4.6\nno-such-package==1.0\nneither-this[extra]==2.0\n")
    with pytest.raises(MissingPackages) as caught:
        cog_process.start(folder)
    assert caught.value.requirements == ("no-such-package==1.0", "neither-this[extra]==2.0")
    assert "pip install no-such-package==1.0" in str(caught.value)


@pytest.mark.parametrize(
    ("file", "text"), [("cog.yaml", "run: ["), ("cog.yaml", "build: 1"), ("cog.yaml", "3"), ("model.json", "{")]
)
def test_a_folder_broken_by_hand_is_refused_with_the_reason(folder, file, text):
    (folder / file).write_text(text)
    with pytest.raises(ServeError, match=r"(?s)cannot be served: .*cogsmith check"):
        cog_process.start(folder)


def test_a_taken_port_is_refused(folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServeError, match=f"port {port} on 127.0.0.1 cannot be used"):
            cog_process.start(folder, port=port)


@pytest.mark.slow
def test_a_server_whose_setup_fails_says_why_and_leaves_nothing(folder):
    (folder / "predict.py").write_text(
        "import cog\n\n\nclass Predictor(cog.BaseRunner):\n"
        "    def setup(self) -> None:\n        raise RuntimeError('no weights here')\n\n"
        "    def run(self, x: int) -> int:\n        return x\n"
    )
    (folder / "model.json").write_bytes(Manifest(name="m", source="s", cogsmith="0", concurrency=1).to_json())
    with pytest.raises(ServeError, match="no weights here"), cog_process.running(folder, seconds=60):
        pytest.fail("it cannot get ready")
