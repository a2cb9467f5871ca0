"""A Python file as Cog's static reader has it: parsed, never imported."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field

from cogsmith.errors import Problem, WorkdirError

RunFunction = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(slots=True)
class Module:
    """A parsed Python file: `text`, its `tree`, and the `problems` found in it so far."""

    path: str
    text: str
    tree: ast.Module
    problems: list[Problem] = field(default_factory=list)

    def report(self, node: ast.AST, message: str, fix: str) -> None:
        """Note a problem at `node`."""
        self.problems.append(Problem(message, fix, self.path, getattr(node, "lineno", None)))

    def imported(self, module: str) -> dict[str, str]:
        """Map local names to the original ones, for `from MODULE import …` at the top level."""
        return {
            alias.asname or alias.name: alias.name
            for node in self.tree.body
            if isinstance(node, ast.ImportFrom) and node.module == module and node.level == 0
            for alias in node.names
        }

    def constants(self) -> dict[str, ast.expr]:
        """Return the values of the module's `NAME = value` lines."""
        return {
            node.targets[0].id: node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
        }

    def classes(self) -> dict[str, ast.ClassDef]:
        """Return the classes written at the top level, the only ones that Cog finds."""
        return {node.name: node for node in self.tree.body if isinstance(node, ast.ClassDef)}


def parse(text: str, path: str = "predict.py") -> Module:
    """Parse `text`. Raises WorkdirError for a syntax error."""
    try:
        return Module(path, text, ast.parse(text))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        problem = Problem(f"not valid Python: {error.args[0]}", "correct the syntax", path, line)
        raise WorkdirError(path, [problem]) from None
