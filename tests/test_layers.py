"""Imports point down: what travels into a container stands alone, and no area imports the one that uses it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cogsmith
from cogsmith.config import load
from cogsmith.workdir.render import render

PACKAGE = Path(cogsmith.__file__).parent
GROUND = {"errors", "manifest", "quant", "heads", "detokenize", "data_uris", "__version__"}
MAY_IMPORT = {
    "errors": set(),
    "quant": {"errors"},
    "heads": {"errors"},
    "manifest": {"errors", "quant"},
    "detokenize": {"errors"},
    "data_uris": set(),
    "lmtp": {"errors", "manifest"},
    "prompts": {"errors"},
    "engine": {"errors", "manifest", "quant", "heads", "detokenize", "lmtp"},
    "predictor": GROUND | {"lmtp", "engine", "prompts"},
    "cache": {"errors"},
    "config": GROUND | {"prompts"},
    "sources": GROUND | {"config", "cache"},
    "workdir": GROUND | {"config", "sources", "cache", "prompts"},
    # `local:` runs in the caller's process what a container runs.
    "client": GROUND | {"lmtp", "engine", "predictor", "prompts", "cache"},
    # `serve HF_NAME` builds the folder that it serves; the page of `--demo` is a client of what is served.
    "gateway": GROUND | {"lmtp", "config", "sources", "workdir", "cache", "client", "prompts"},
    # One function for any model: a connection, or a folder that is built on first use.
    "ask": {"client", "gateway", "sources"},
    # An export compares its graph with the engine's model, on the packager's machine.
    "export": GROUND | {"config", "sources", "workdir", "engine", "cache"},
    # `inspect` builds the engine's model without its weights, on this machine.
    "cli": GROUND
    | {"config", "sources", "workdir", "client", "gateway", "lmtp", "engine", "prompts", "export", "cache"},
}


@pytest.mark.parametrize("area", sorted(MAY_IMPORT))
def test_an_area_imports_only_what_is_below_it(area: str):
    allowed = MAY_IMPORT[area] | {area, "cogsmith"}
    upward = [
        f"{file.relative_to(PACKAGE)}:{line} imports {imported}"
        for file in files_of(area)
        for imported, line in imports(ast.parse(file.read_text(encoding="utf-8")))
        if imported not in allowed
    ]
    assert upward == []


def test_every_area_has_its_place():
    areas = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert areas - {"__init__"} == MAY_IMPORT.keys()


def test_all_that_a_container_runs_travels_into_it(tmp_path):
    """Its folder stands alone: what travels imports nothing of ours that does not."""
    (tmp_path / "config.toml").write_text("[models.m]\nsource = 'hf:a/b'\n")
    project = load(tmp_path / "config.toml")
    rendered = render(project.models["m"], "hf:a/b@c", project)
    ours = [path for path in rendered if path.startswith("cogsmith/") and path.endswith(".py")]
    areas = {path.split("/")[1].removesuffix(".py") for path in ours} | {"cogsmith", "__version__"}
    assert {"engine", "predictor"} < areas
    # The package itself names what it has for users, and imports it when it is asked for.
    trees = [ast.parse(rendered[path].content) for path in ours if path != "cogsmith/__init__.py"]
    missing = {imported for tree in trees for imported, _ in imports(tree)} - areas
    assert missing == set()


def files_of(area: str) -> Iterator[Path]:
    module = PACKAGE / f"{area}.py"
    yield from [module] if module.is_file() else (PACKAGE / area).rglob("*.py")


def imports(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the area of each import of this project, and its line: also in functions and for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides what it crosses"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            top, *rest = name.split(".")
            if top == "cogsmith":
                yield (rest or ["cogsmith"])[0], node.lineno
