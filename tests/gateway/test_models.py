"""What a work directory is to clients, and under which names they find it."""

import json
import os
import shutil
from datetime import UTC, datetime

import pytest

from cogsmith.errors import UnknownResource, UserError
from cogsmith.gateway.models import Models, describe
from cogsmith.gateway.worker import Worker
from cogsmith.manifest import Manifest

SCHEMA = {"info": {"version": "0.23.1"}}


def work_directory(folder, **settings):
    """The files that matter of a work directory."""
    (folder / ".cog").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    (folder / "cogsmith").mkdir()
    manifest = Manifest(name=folder.name, source="hf:org/repo@abc", cogsmith="0", concurrency=7, **settings)
    (folder / "model.json").write_bytes(manifest.to_json())
    (folder / ".cog/openapi_schema.json").write_text(json.dumps(SCHEMA))
    (folder / "predict.py").write_text("1")
    (folder / "cogsmith/errors.py").write_text("2")
    (folder / "checkpoints/model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def folder(tmp_path):
    return work_directory(tmp_path / "tiny")


def test_it_is_described_by_its_own_files(folder):
    os.utime(folder / "model.json", (1_700_000_000, 1_700_000_000))
    model = describe(folder)
    assert (model.name, model.folder, model.concurrency, model.openapi_schema) == ("tiny", folder, 7, SCHEMA)
    assert model.created_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert "hf:org/repo@abc" in model.description
    assert len(model.version) == 64
    assert set(model.version) <= set("0123456789abcdef")


def test_a_version_is_the_same_for_the_same_files_wherever_and_whenever(folder, tmp_path):
    version = describe(folder).version
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    (copy / "cogsmith/__pycache__").mkdir()
    (copy / "cogsmith/__pycache__/errors.pyc").write_bytes(b"left by a run")
    os.utime(copy / "predict.py", (0, 0))
    assert describe(copy).version == version


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "predict.py").write_text("9"),
        lambda folder: (folder / "cogsmith/errors.py").write_text("9"),
        lambda folder: (folder / "predict.py").rename(folder / "other.py"),
        lambda folder: (folder / "checkpoints/model.safetensors").write_bytes(b"weights!"),
        lambda folder: (folder / "checkpoints/more.safetensors").write_bytes(b""),
        lambda folder: (folder / "model.json").write_bytes(
            Manifest(name="tiny", source="hf:org/repo@def", cogsmith="0", concurrency=7).to_json()
        ),
    ],
)
def test_a_version_changes_with_code_config_and_weights(folder, change):
    version = describe(folder).version
    change(folder)
    assert describe(folder).version != version


@pytest.mark.parametrize("missing", ["model.json", ".cog/openapi_schema.json"])
def test_an_incomplete_folder_is_refused_with_the_fix(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=rf"(?s){missing}.*build this folder again"):
        describe(folder)


@pytest.fixture
def models(tmp_path):
    return Models([Worker(describe(work_directory(tmp_path / name))) for name in ("one", "two")])


@pytest.mark.parametrize("owner", ["local", "meta", "$meta", "$", "Some-One"])
def test_any_owner_is_right(models, owner):
    assert models.find(owner, "two").model.name == "two"


def test_the_letters_case_does_not_matter(models):
    """Repositories on the Hub have capitals, folders here have none."""
    assert models.find("Org", "TWO").model.name == "two"


def test_the_first_is_the_default_and_versions_lead_to_their_model(models):
    assert models.default() is models.all()[0]
    for worker in models.all():
        assert models.by_version(worker.model.version) is worker


def test_what_is_not_served_is_said_with_what_is(models):
    with pytest.raises(UnknownResource, match=r"(?s)org/three.*one, two"):
        models.find("org", "three")
    with pytest.raises(UnknownResource, match=r"0{64}"):
        models.by_version("0" * 64)
