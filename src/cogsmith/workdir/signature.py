"""The signature of `run`, read from predict.py without importing it, as Cog's own reader does.

Whatever Cog would reject, drop silently or refuse only once the container runs is a problem here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cogsmith.errors import WorkdirError
from cogsmith.workdir import cog_types, literals
from cogsmith.workdir.input_call import RunInput, read_input
from cogsmith.workdir.module import Module, RunFunction, parse


@dataclass(frozen=True, slots=True)
class RunSignature:
    """What a caller sees of `run`: `inputs` in order, `output` as JSON Schema, and how it is served."""

    inputs: tuple[RunInput, ...]
    output: Mapping[str, Any]
    concurrency: int = 1
    streaming: bool = False
    is_async: bool = False


def read(text: str, class_name: str = "Predictor", path: str = "predict.py") -> RunSignature:
    """Read the signature of `class_name.run` in `text`. Raises WorkdirError with every problem."""
    module = parse(text, path)
    run = find_run(module, class_name)
    signature = _read_run(module, run) if run else None
    if module.problems or signature is None:
        raise WorkdirError(path, module.problems)
    return signature


def find_run(module: Module, class_name: str) -> RunFunction | None:
    """Return the `run` written literally in `class_name`; None, and a problem, where Cog would find none."""
    owner = module.classes().get(class_name)
    if owner is None:
        module.report(
            module.tree,
            f"no class {class_name} at the top level of the file",
            f"write `class {class_name}(…):` there: not nested, not an alias",
        )
        return None
    for node in owner.body:
        if isinstance(node, RunFunction) and node.name == "run":
            return node
    module.report(
        owner,
        f"{class_name} has no literal run()",
        "write `def run(self, …)` in the class: Cog reads the file and neither imports nor follows `run = …`",
    )
    return None


def _read_run(module: Module, run: RunFunction) -> RunSignature | None:
    inputs = tuple(_read_inputs(module, run))
    streaming, concurrency = _read_decorators(module, run)
    is_async = isinstance(run, ast.AsyncFunctionDef)
    if concurrency > 1 and not is_async:
        module.report(run, f"concurrency of {concurrency} on a plain def", "write `async def run`, or leave out max")
    output = _read_output(module, run)
    if output is None:
        return None
    if streaming and not cog_types.is_iterator(output):
        module.report(run, "@cog.streaming on a run that returns no iterator", "return ConcatenateIterator[str]")
    return RunSignature(inputs, output, concurrency, streaming, is_async)


def _read_output(module: Module, run: RunFunction) -> cog_types.JsonSchema | None:
    if run.returns is None:
        module.report(run, "run has no return annotation", "add `-> ConcatenateIterator[str]`")
        return None
    try:
        return cog_types.output_schema(run.returns)
    except cog_types.UnknownType as error:
        module.report(run.returns, str(error), "use str, int, float, bool, dict, list[T] or ConcatenateIterator[str]")
        return None


def _read_inputs(module: Module, run: RunFunction) -> Iterator[RunInput]:
    arguments = run.args
    unusual = [arguments.vararg, arguments.kwarg, *arguments.kwonlyargs, *arguments.posonlyargs]
    names = ", ".join(parameter.arg for parameter in unusual if parameter)
    if names:
        module.report(
            run,
            f"{names}: *args, **kwargs, keyword-only and positional-only parameters are not accepted",
            "name every input as an ordinary parameter",
        )
    parameters = arguments.args
    if not parameters or parameters[0].arg != "self":
        module.report(run, "run's first parameter is not self", "write `def run(self, …)`")
    defaults = [None] * (len(parameters) - len(arguments.defaults)) + list(arguments.defaults)
    typed_dicts = frozenset(name for name, owner in module.classes().items() if _is_typed_dict(owner))
    for parameter, default in list(zip(parameters, defaults, strict=True))[1:]:
        schema = _read_annotation(module, parameter, typed_dicts)
        if schema is not None:
            yield read_input(module, parameter.arg, schema, default)


def _read_annotation(module: Module, parameter: ast.arg, typed_dicts: frozenset[str]) -> cog_types.JsonSchema | None:
    if parameter.annotation is None:
        module.report(parameter, f"{parameter.arg} has no type annotation", f"write `{parameter.arg}: str`")
        return None
    try:
        return cog_types.input_schema(parameter.annotation, typed_dicts)
    except cog_types.UnknownType as error:
        fix = "use str, int, float, bool, Path, Secret, dict, list[T] or T | None"
        module.report(parameter, f"{parameter.arg}: {error}", fix)
        return None


def _is_typed_dict(owner: ast.ClassDef) -> bool:
    return any(ast.unparse(base).rpartition(".")[2] == "TypedDict" for base in owner.bases)


def _read_decorators(module: Module, run: RunFunction) -> tuple[bool, int]:
    """Return whether `run` streams and how many predictions it takes at once."""
    streaming, concurrency = False, 1
    for decorator in run.decorator_list:
        call = decorator if isinstance(decorator, ast.Call) else None
        name = _cog_name(module, call.func if call else decorator)
        if name == "streaming":
            streaming = True
        elif name == "concurrent":
            concurrency = _read_concurrency(module, call) if call else 1
        else:
            module.report(
                decorator,
                f"decorator @{ast.unparse(decorator)} on run: Cog ignores it when it reads the file",
                "use only @cog.concurrent and @cog.streaming",
            )
    return streaming, concurrency


def _cog_name(module: Module, node: ast.expr) -> str | None:
    """Return NAME for `cog.NAME`, or for a name imported from cog."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return node.attr if node.value.id == "cog" else None
    return module.imported("cog").get(node.id) if isinstance(node, ast.Name) else None


def _read_concurrency(module: Module, call: ast.Call) -> int:
    values = [keyword.value for keyword in call.keywords if keyword.arg == "max"]
    if len(values) == 1 and not call.args:
        try:
            value = literals.read(values[0], module.text)
        except literals.UnreadableLiteral:
            value = None
        if type(value) is int and value >= 1:
            return value
    module.report(call, f"`{ast.unparse(call)}`: max is not an integer literal", "write `@cog.concurrent(max=32)`")
    return 1
