"""What a name in a pickle means, before anything else is known of it: harmful, known by its meaning, or inert.

Harmless is what cannot do anything even where pickle runs it; of Python's own library that is a short list, and all the
rest is refused by name. Other packages' classes become inert, but for those known to load or run things: to make
them inert would be as safe, and would keep from the user that the file attacks whoever opens it with pickle.
"""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cogsmith.sources.torchfile.inert import Inert


class Harmful(Exception):
    """A pickle asks for something that could run code. The message is its name."""


@dataclass(frozen=True, slots=True)
class Known:
    """A function that a pickle may call: `call` is our own, of the same meaning."""

    path: str
    call: Callable[..., Any]


_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
"""Modules that protocols 0 to 2 still call by their old names."""

_STANDARD = sys.stdlib_module_names | {"commands", "cPickle", "distutils", "imp", "thread", "urllib2"}
# Modules of code from the Hub have hyphens in their paths.
_PART = re.compile(r"[\w-]+")

_HARMLESS_MODULES = frozenset({"datetime", "decimal", "enum", "fractions", "pathlib", "uuid", "zoneinfo"})
_HARMLESS = frozenset(
    {
        "argparse.Namespace", "builtins.object", "builtins.range", "builtins.slice", "collections.ChainMap",
        "functools.partial", "ipaddress.IPv4Address", "ipaddress.IPv6Address", "types.SimpleNamespace",
    }
    | {f"builtins.{name}" for name in ("bool", "bytes", "dict", "float", "int", "list", "str", "tuple", "type")}
)  # fmt: skip
"""Names of the standard library that become inert, as classes or as objects."""

_HARMFUL = (
    "aiohttp", "cloudpickle", "dill", "fsspec", "httpx", "IPython", "joblib", "numba", "numpy.DataSource",
    "numpy.ctypeslib", "numpy.distutils", "numpy.f2py", "numpy.fromfile", "numpy.lib.npyio", "numpy.load",
    "numpy.loadtxt", "numpy.memmap", "numpy.save", "numpy.savez", "numpy.testing", "pandas.io", "pandas.read_pickle",
    "pip", "pkg_resources", "requests", "setuptools", "torch._dynamo", "torch._inductor", "torch.classes",
    "torch.distributed.launch", "torch.distributed.rpc", "torch.distributed.run", "torch.from_file",
    "torch.fx.graph_module", "torch.hub", "torch.jit", "torch.load", "torch.multiprocessing", "torch.ops",
    "torch.package", "torch.save", "torch.serialization", "torch.storage._load_from_bytes", "torch.utils.bottleneck",
    "torch.utils.collect_env", "torch.utils.cpp_extension", "torch.utils.model_zoo", "urllib3", "yaml",
)  # fmt: skip
"""Of other packages: these names and all below them."""

_HARMFUL_PARTS = frozenset(
    {"builtins", "eval", "exec", "importlib", "os", "pickle", "popen", "subprocess", "sys", "system"}
)
"""No honest class has such a part in its path: `torch.serialization.os.system`."""

_LAYOUT = ("torch.serialization", "_get_layout")


def lookup(module: str, name: str, more: Mapping[tuple[str, str], Any]) -> Any:
    """Return what `name` of `module` stands for: an entry of `more`, else of Python's own data, else Inert.

    Nothing is imported. Raises Harmful for what could run code, ValueError for what is no name.
    """
    module = _PYTHON_2.get(module, module)
    parts = f"{module}.{name}".split(".")
    if not all(_PART.fullmatch(part) for part in parts):
        raise ValueError(f"its pickle names {module[:40]!r} {name[:40]!r}, which is no name")
    found = more.get((module, name), _DATA.get((module, name)))
    if found is not None:
        return found
    if (module, name) != _LAYOUT and _is_harmful(parts):
        raise Harmful(".".join(parts))
    return Inert(module, name)


def _is_harmful(parts: list[str]) -> bool:
    path = ".".join(parts)
    if parts[0] in _STANDARD:
        return path not in _HARMLESS and not (parts[0] in _HARMLESS_MODULES and parts[-2] == parts[0])
    return (
        any(path == name or path.startswith(f"{name}.") for name in _HARMFUL)
        or not _HARMFUL_PARTS.isdisjoint(parts)
        or any(part.startswith("__") and part.endswith("__") for part in parts if part != "__main__")
    )


def _attribute(owner: Any, name: Any) -> Any:
    """Stand in for `getattr`, by which Python 3.11's first releases pickled members of an Enum: never looks it up."""
    is_class = type(owner) is Inert and owner.args is None and owner.module.partition(".")[0] not in _STANDARD
    if is_class and type(name) is str and name.isidentifier() and not name.startswith("_"):
        return Inert(owner.module, owner.name, (name,))
    raise Harmful("builtins.getattr")


def _encode(text: str, encoding: str = "utf-8") -> bytes:
    """Stand in for `_codecs.encode`, which is how protocol 2 writes bytes."""
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Harmful("_codecs.encode")
    return text.encode("latin-1")


def _bytearray(content: Any = b"", encoding: str = "latin-1") -> bytearray:
    # Of a number it would be that many zeros.
    return bytearray(_encode(content, encoding) if type(content) is str else _plain(content, bytes))


def _reconstruct(cls: Any, base: Any, state: Any) -> Any:
    """Stand in for `copyreg._reconstructor`, which protocols 0 and 1 make objects by."""
    if type(cls) is not Inert or type(base) is not Inert or base.module != "builtins":
        raise Harmful("copyreg._reconstructor")
    return cls(*(() if state is None else (state,)))


def _plain(value: Any, *types: type) -> Any:
    if type(value) not in types:
        raise TypeError(f"its pickle makes something of a {type(value).__name__}")
    return value


def _mapping(pairs: Any = ()) -> OrderedDict[Any, Any]:
    content = _plain(pairs, list, tuple, dict, OrderedDict)
    return OrderedDict(
        (hashable(key), value) for key, value in (content.items() if isinstance(content, dict) else content)
    )


def _counter(counts: Any = None) -> dict[Any, Any]:
    return dict(_plain(counts, dict) if counts is not None else {})


def _members(items: Any = ()) -> set[Any]:
    return {hashable(item) for item in _plain(items, list, tuple, set, frozenset)}


_CALLS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encode,
    "builtins.bytearray": _bytearray,
    "builtins.complex": lambda real, imag: complex(_plain(real, float, int), _plain(imag, float, int)),
    "builtins.frozenset": lambda items=(): frozenset(_members(items)),
    "builtins.getattr": _attribute,
    "builtins.set": _members,
    "collections.Counter": _counter,
    "collections.OrderedDict": _mapping,
    # What a missing key would give is a matter for whoever wrote the file.
    "collections.defaultdict": lambda factory=None: {},
    "collections.deque": lambda items=(), maximum=None: list(_plain(items, list, tuple)),
    "copyreg._reconstructor": _reconstruct,
}


def known(calls: Mapping[str, Callable[..., Any]]) -> dict[tuple[str, str], Known]:
    """Return functions of ours, named by whole paths, as `lookup` finds them: by module and name."""
    split = {path: path.rpartition(".") for path in calls}
    return {(module, name): Known(path, calls[path]) for path, (module, _, name) in split.items()}


_DATA = known(_CALLS)

_SCALARS = (str, int, float, bool, type(None), bytes, complex, Inert)
_KEY_DEPTH = 4


def hashable(key: Any, depth: int = _KEY_DEPTH) -> Any:
    """Return `key` where it is fit for a dict. Raises ValueError for what a checkpoint has no cause to use as one.

    CPython hashes nested tuples on the C stack without a limit: a deep one would end the process.
    """
    if type(key) in _SCALARS:
        return key
    if type(key) in (tuple, frozenset) and depth:
        for item in key:
            hashable(item, depth - 1)
        return key
    raise ValueError(f"its pickle uses a {type(key).__name__} as a key")
