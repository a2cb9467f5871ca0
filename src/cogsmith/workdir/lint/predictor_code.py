"""predict.py: whether Cog's static reader and the runtime will both take it, and the schema that follows from it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cogsmith.errors import Problem, WorkdirError
from cogsmith.workdir import schema, signature
from cogsmith.workdir.lint import cog_yaml
from cogsmith.workdir.module import Module, RunFunction, parse
from cogsmith.workdir.signature import RunSignature

CONCURRENT_PYTHON = (3, 11)

# Top-level names that Cog takes for installed packages, so that it never reads a folder of that name.
_TAKEN_NAMES = {
    "builtins", "typing", "typing_extensions", "collections", "abc", "enum", "dataclasses", "os", "sys", "io", "json",
    "re", "math", "pathlib", "functools", "itertools", "contextlib", "concurrent", "asyncio", "multiprocessing",
    "threading", "logging", "warnings", "unittest", "pytest", "numpy", "torch", "tensorflow", "jax", "scipy",
    "sklearn", "transformers", "diffusers", "accelerate", "safetensors", "PIL", "cv2", "skimage", "requests", "httpx",
    "aiohttp", "fastapi", "flask", "pydantic", "cog",
}  # fmt: skip


def check(folder: Path) -> list[Problem]:
    """Return the problems of the file that cog.yaml's `run` names, and of the schema made from it."""
    config = cog_yaml.load(folder)
    file, _, class_name = str(config.get("run", "")).partition(":")
    if not (file.endswith(".py") and class_name and (folder / file).is_file()):
        return []
    text = (folder / file).read_text(encoding="utf-8", errors="replace")
    problems: list[Problem] = []
    try:
        run = signature.read(text, class_name, file)
        problems += _schema_problems(folder, run)
        problems += _python_problems(config, run)
    except WorkdirError as error:
        problems += error.problems
    return problems + _class_problems(folder, text, class_name, file)


def _schema_problems(folder: Path, run: RunSignature) -> list[Problem]:
    """Compare the schema file with the one that follows from `run`. Who wrote it (`info`) may differ."""
    expected = schema.document(run, version="")
    try:
        found: Any = json.loads((folder / schema.FILE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if isinstance(found, dict) and found | {"info": None} == expected | {"info": None}:
        return []
    return [Problem("missing, or not the schema of run()", "build this folder again", schema.FILE_NAME)]


def _python_problems(config: dict[str, Any], run: RunSignature) -> list[Problem]:
    version = cog_yaml.python_version(config)
    if run.concurrency == 1 or version is None or not cog_yaml.PYTHON_MINIMUM <= version < CONCURRENT_PYTHON:
        return []
    where = f"{cog_yaml.FILE}: build.python_version"
    return [Problem("concurrency needs Python 3.11 or newer", 'write "3.11", or concurrency 1', where)]


def _class_problems(folder: Path, text: str, class_name: str, file: str) -> list[Problem]:
    """Check what the signature does not show: base classes, a second entry point, generators that never stream."""
    try:
        module = parse(text, file)
    except WorkdirError:
        return []
    owner = module.classes().get(class_name)
    if owner is None:
        return []
    for node in owner.body:
        if isinstance(node, RunFunction) and node.name == "predict":
            module.report(node, f"{class_name} has a predict() beside run()", "keep run() only")
        if isinstance(node, ast.AsyncFunctionDef) and node.name == "run" and any(_yields(node)):
            fix = "return a plain generator made elsewhere: `return self.stream(…)`"
            module.report(node, "`yield` in an async run: Cog collects it all and streams nothing", fix)
    for base in owner.bases:
        _check_base(folder, module, base)
    return module.problems


def _yields(function: ast.AST) -> Iterator[ast.AST]:
    """Yield the `yield` expressions of `function` itself, not of functions inside it."""
    for node in ast.iter_child_nodes(function):
        if isinstance(node, ast.Yield | ast.YieldFrom):
            yield node
        elif not isinstance(node, RunFunction | ast.Lambda | ast.ClassDef):
            yield from _yields(node)


def _check_base(folder: Path, module: Module, base: ast.expr) -> None:
    """Check a base class that comes from a module in the work directory."""
    for node in module.tree.body:
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if ast.unparse(base) not in [alias.asname or alias.name for alias in node.names]:
            continue
        top = node.module.partition(".")[0]
        path = folder.joinpath(*node.module.split("."))
        if top in _TAKEN_NAMES and ((folder / top).is_dir() or (folder / f"{top}.py").is_file()):
            message = f"{top} is the name of a package that Cog never looks for in the work directory"
            module.report(node, message, "rename the folder")
        elif (path / "__init__.py").is_file():
            message = f"the base class comes from the package {node.module}, whose __init__.py Cog does not read"
            module.report(node, message, "import it from the module that defines it")
        elif path.with_suffix(".py").is_file() and _defines_predict(path.with_suffix(".py"), ast.unparse(base)):
            module.report(base, "the base class defines predict() beside run()", "rename the base's method")


def _defines_predict(file: Path, class_name: str) -> bool:
    try:
        owner = parse(file.read_text(encoding="utf-8", errors="replace"), file.name).classes().get(class_name)
    except WorkdirError:
        return False
    methods = owner.body if owner else []
    return any(isinstance(node, RunFunction) and node.name == "predict" for node in methods)
