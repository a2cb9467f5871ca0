"""Python files that travel as one package: read as text and parsed, never imported and never run.

What can be told without running them is told: that they are Python, that they define the classes that are asked for,
that the siblings which they import are there, and which packages they need.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import NamedTuple

from cogsmith.errors import Problem

_Module = tuple[str, ...]
"""A module's name below the package, part by part; that of a folder, where it is one with `__init__.py`."""


@dataclass(frozen=True, slots=True)
class Needed:
    """A package that a file imports: its top-level `name`. `surely` is False where it depends on what runs."""

    name: str
    path: str
    line: int
    surely: bool


class _Import(NamedTuple):
    """An import that is not in a `try`: `surely` where importing the file runs it."""

    node: ast.Import | ast.ImportFrom
    surely: bool


@dataclass(slots=True)
class Package:
    """Files by their relative POSIX path, parsed as `python` (major, minor). `problems` grows with each question."""

    files: Mapping[str, bytes]
    python: tuple[int, int]
    problems: list[Problem] = field(default_factory=list)
    _trees: dict[str, ast.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path, content in sorted(self.files.items()):
            tree = self._parsed(path, content)
            if tree is not None:
                self._trees[path] = tree

    def require_class(self, reference: str, key: str) -> ast.ClassDef | None:
        """Return the class MODULE.CLASS, of the module itself or of a sibling that it imports it from.

        Notes a problem of the config's `key` where there is none, and returns None.
        """
        *module, name = reference.split(".")
        path = self._file(tuple(module))
        if path is None:
            there = ", ".join(sorted(self.files))
            self.problems.append(
                Problem(f"{reference!r} names no module of the files ({there})", "write MODULE.CLASS", key)
            )
            return None
        if path not in self._trees:
            return None
        found = self._class(tuple(module), name, set())
        if found is None:
            self.problems.append(
                Problem(f"{path} has no class {name} at its top level", "name the class that it defines", key)
            )
        return found

    def needed(self, references: Sequence[str]) -> list[Needed]:
        """Return the packages that the modules of the classes import, and those of all siblings that they import.

        Notes a problem for each sibling that is not there.
        """
        found: list[Needed] = []
        waiting = [tuple(reference.split(".")[:-1]) for reference in references]
        seen: set[str] = set()
        while waiting:
            module = waiting.pop()
            parents = [module[:length] for length in range(len(module))]
            for path in filter(None, map(self._file, [*parents, module])):
                if path not in seen:
                    seen.add(path)
                    for item in _imports(self._trees[path].body if path in self._trees else ()):
                        waiting += self._follow(path, item, found)
        return found

    def _parsed(self, path: str, content: bytes) -> ast.Module | None:
        version = ".".join(map(str, self.python))
        try:
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
            if encoding not in ("utf-8", "utf-8-sig"):
                self.problems.append(Problem(f"the text is {encoding}, not UTF-8", "save the file as UTF-8", path))
                return None
            return ast.parse(content.decode("utf-8-sig"), path, feature_version=self.python)
        except UnicodeDecodeError as error:
            line = content[: error.start].count(b"\n") + 1
            self.problems.append(Problem("the text is not UTF-8", "save the file as UTF-8", path, line))
        except (SyntaxError, ValueError, RecursionError) as error:
            line_or_none = getattr(error, "lineno", None)
            reason = error.args[0] if error.args else type(error).__name__
            message = f"not valid Python {version}: {reason}"
            self.problems.append(Problem(message, "correct the syntax, or set cog.python", path, line_or_none))
        return None

    def _file(self, module: _Module) -> str | None:
        """Return the file of a module; None where there is none, as for the package itself without `__init__.py`."""
        stem = "/".join(module)
        names = (f"{stem}.py", f"{stem}/__init__.py") if module else ("__init__.py",)
        return next((name for name in names if name in self.files), None)

    def _is_there(self, module: _Module) -> bool:
        """Whether a module can be imported: a file, or a folder that holds some."""
        folder = "/".join((*module, ""))
        return not module or self._file(module) is not None or any(path.startswith(folder) for path in self.files)

    def _class(self, module: _Module, name: str, seen: set[_Module]) -> ast.ClassDef | None:
        path = self._file(module)
        if path is None or path not in self._trees or module in seen:
            return None
        seen.add(module)
        for node in _top_level(self._trees[path].body):
            if isinstance(node, ast.ClassDef) and node.name == name:
                return node
            if isinstance(node, ast.ImportFrom) and node.level:
                sibling = _target(path, node)
                for alias in node.names if sibling is not None else ():
                    if alias.name == "*" or name == (alias.asname or alias.name):
                        found = self._class(sibling or (), name if alias.name == "*" else alias.name, seen)
                        if found is not None:
                            return found
        return None

    def _follow(self, path: str, item: _Import, found: list[Needed]) -> list[_Module]:
        """Return the siblings that an import names, and add the packages that it names to `found`."""
        node = item.node
        if isinstance(node, ast.ImportFrom) and node.level:
            return self._siblings(path, node)
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for name in names:
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names:
                found.append(Needed(top, path, node.lineno, item.surely))
        return []

    def _siblings(self, path: str, node: ast.ImportFrom) -> list[_Module]:
        target = _target(path, node)
        text = f"{'.' * node.level}{node.module or ''}"
        if target is None:
            self._missing(path, node, f"`from {text} import` leaves the folder of the files")
            return []
        if not self._is_there(target):
            self._missing(path, node, f"`from {text} import` names {'/'.join(target)}.py, which is not among the files")
            return []
        modules = [(*target, alias.name) for alias in node.names if self._is_there((*target, alias.name))]
        if self._file(target) is None:
            # A folder without __init__.py holds nothing but modules.
            for alias in node.names:
                if (*target, alias.name) not in modules:
                    self._missing(
                        path, node, f"`from {text} import {alias.name}` names a module that is not among the files"
                    )
        return [target, *modules]

    def _missing(self, path: str, node: ast.ImportFrom, message: str) -> None:
        self.problems.append(Problem(message, "add the file to code.path or code.files", path, node.lineno))


def literal(owner: ast.ClassDef, name: str) -> tuple[str, int] | None:
    """Return the text that a class body gives to `name`, and its line; None where it gives none, or no plain text."""
    for node in owner.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            value = node.value.value if isinstance(node.value, ast.Constant) else None
            return (value, node.lineno) if isinstance(value, str) else None
    return None


def _target(path: str, node: ast.ImportFrom) -> _Module | None:
    """Return the module that a relative import in the file `path` names; None where that is above the package."""
    folder = PurePosixPath(path).parent.parts
    if node.level - 1 > len(folder):
        return None
    return (*folder[: len(folder) - (node.level - 1)], *(node.module.split(".") if node.module else ()))


def _top_level(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those in its `if` and `try` too."""
    for node in body:
        yield node
        for name in ("body", "orelse", "finalbody"):
            if isinstance(node, ast.If | ast.Try):
                yield from _top_level(getattr(node, name, ()))
        if isinstance(node, ast.Try):
            for handler in node.handlers:
                yield from _top_level(handler.body)


def _imports(body: Sequence[ast.AST], surely: bool = True) -> Iterator[_Import]:
    """Yield the imports in statements and in those within, but for a `try`, which has an answer to their failure."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield _Import(node, surely)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _imports(node.orelse, surely)
        elif not isinstance(node, ast.Try):
            runs_now = surely and isinstance(node, ast.ClassDef | ast.With)
            yield from _imports(list(ast.iter_child_nodes(node)), runs_now)
