"""Packages that models lack: installed in an environment that ./build made, said in one that the user keeps."""

import sys

import pytest

from cogsmith.cli import build, extras
from cogsmith.errors import MissingExtra, ProblemsError, SourceError
from cogsmith.workdir.build import preview

CONFIG = """
[models.one]
source = "s3://bucket/one"
[models.two]
source = "az://container/two"
[models.three]
source = "hf:org/three"
"""
EXTRAS = {"s3": "s3", "az": "azure"}


class Shop:
    """A config.toml whose sources are never there, and cannot even be asked without packages."""

    def __init__(self, root):
        self.config = root / "config.toml"
        self.config.write_text(CONFIG)
        self.installed = []

    def plan(self):
        """Return what `cogsmith build --plan` finds wrong."""
        with pytest.raises(ProblemsError) as caught:
            build.command(None, self.config, plan=True, frozen=False, as_json=False, demo=False)
        return [(problem.where, problem.message) for problem in caught.value.problems]

    def open_source(self, model, cache):
        return Source(model.source, self.installed)


class Source:
    def __init__(self, uri, installed):
        self.uri, self.installed = uri, installed

    def resolve(self):
        extra = EXTRAS.get(self.uri.partition(":")[0])
        if extra and extra not in self.installed:
            raise MissingExtra(extra, self.uri)
        raise SourceError(f"{self.uri} is not there")


@pytest.fixture
def shop(tmp_path, monkeypatch):
    made = Shop(tmp_path)
    monkeypatch.setattr(build, "preview", lambda project, names: preview(project, names, open_source=made.open_source))
    monkeypatch.setattr(extras, "pinned", lambda extra: [extra])
    monkeypatch.setattr(extras, "_install", made.installed.extend)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    return made


def test_what_several_models_lack_is_installed_and_the_rest_is_said(shop, tmp_path):
    (tmp_path / extras.MARKER).touch()
    found = shop.plan()
    assert shop.installed == ["s3", "azure"]
    assert [message for _, message in found] == [
        "s3://bucket/one is not there",
        "az://container/two is not there",
        "hf:org/three is not there",
    ]


def test_in_an_environment_of_the_users_all_is_said_at_once(shop):
    assert shop.plan() == [
        ("models.one", "s3://bucket/one needs packages that are not installed"),
        ("models.two", "az://container/two needs packages that are not installed"),
        ("models.three", "hf:org/three is not there"),
    ]
    assert shop.installed == []
