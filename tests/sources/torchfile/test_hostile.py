"""Files made to do harm: nothing of them runs, nothing is imported, and the harm is named."""

from __future__ import annotations

import importlib
import os
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from cogsmith.errors import SourceError
from cogsmith.sources.torchfile import Inert, load

from .pickles import archive, called, named, number, pickled, stack_named, storage, tensor, text, whole


@pytest.fixture(autouse=True, scope="module")
def reader_is_imported() -> None:
    """So that what is imported later was imported by a pickle."""
    importlib.import_module("cogsmith.sources.torchfile.reading")


def attempt(path: Path) -> str:
    """Load a file that must be refused; return the message. Whatever it meant to do, it has not done."""
    canary, modules = path.parent / "canary", set(sys.modules)
    with pytest.raises(SourceError) as caught:
        load(path)
    assert not canary.exists()
    assert set(sys.modules) == modules
    assert str(path) in caught.value.message
    assert caught.value.fix
    return caught.value.message


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.pickled = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.pickled


@pytest.mark.parametrize("protocol", range(6))
def test_python_s_own_pickles_of_calls(tmp_path: Path, protocol: int):
    canary = tmp_path / "canary"
    content = pickle.dumps(Call(os.system, f"touch {canary}"), protocol)
    assert "posix.system" in attempt(archive(tmp_path / "x.pt", content))
    for function, args in ((eval, (f"open({str(canary)!r}, 'w')",)), (exec, (f"open({str(canary)!r}, 'w')",))):
        content = pickle.dumps(Call(function, *args), protocol)
        assert f"builtins.{function.__name__}" in attempt(archive(tmp_path / "x.pt", content))
    # The same bytes do harm where they are unpickled, or the test would prove nothing.
    pickle.loads(content)
    assert canary.exists()


HARMFUL = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("subprocess", "check_output"),
    ("builtins", "eval"), ("builtins", "exec"), ("builtins", "open"), ("builtins", "__import__"),
    ("builtins", "compile"), ("__builtin__", "eval"), ("runpy", "run_path"), ("importlib", "import_module"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.hub", "download_url_to_file"), ("torch.jit", "load"),
    ("torch.serialization", "load"), ("torch.storage", "_load_from_bytes"), ("torch.utils.cpp_extension", "load"),
    ("numpy", "load"), ("numpy", "memmap"), ("numpy.testing._private.utils", "runstring"), ("pickle", "loads"),
    ("_pickle", "loads"), ("cPickle", "loads"), ("commands", "getoutput"), ("copyreg", "add_extension"),
    ("copy_reg", "__newobj__"), ("shutil", "rmtree"), ("socket", "socket"), ("ctypes", "CDLL"), ("pty", "spawn"),
    ("code", "interact"), ("timeit", "timeit"), ("bdb", "Bdb"), ("functools", "reduce"), ("operator", "attrgetter"),
    ("types", "FunctionType"), ("types", "CodeType"), ("marshal", "loads"), ("webbrowser", "open"), ("site", "main"),
    ("pathlib.os", "system"), ("enum.sys", "exit"), ("datetime.sys", "exit"), ("pip._internal", "main"),
    ("logging.config", "dictConfig"), ("torch.fx.graph_module", "reduce_graph_module"), ("dill", "loads"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), HARMFUL, ids=".".join)
@pytest.mark.parametrize("how", [named, stack_named])
def test_what_could_run_code_is_refused_by_its_name(tmp_path: Path, how: Any, module: str, name: str):
    path = f"{module.replace('__builtin__', 'builtins').replace('copy_reg', 'copyreg')}.{name}"
    touch = text(f"touch {tmp_path / 'canary'}")
    assert f"asks for {path}, " in attempt(archive(tmp_path / "x.pt", pickled(called(how(module, name), touch), 4)))
    # To name it is enough: what is named could be called by whoever gets it.
    assert f"asks for {path}, " in attempt(archive(tmp_path / "x.pt", pickled(how(module, name), 4)))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os.path", "os.system"), ("os", "path.os.system"), ("torch", "hub.load"),
        ("torch", "storage._load_from_bytes"),
        ("torch.serialization", "os.system"), ("torch.nn", "Module.__init__.__globals__"), ("composer", "os.system"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"), ("collections", "OrderedDict.fromkeys"),
        ("collections", "_sys.modules"), ("numpy", "f2py.os.system"), ("argparse", "Namespace.__class__"),
        ("torch.serialization", "_get_layout.__globals__"), ("pathlib", "Path.write_text"), ("datetime", "sys.exit"),
    ],
    ids=".".join,
)  # fmt: skip
def test_names_with_dots_lead_nowhere(tmp_path: Path, module: str, name: str):
    content = pickled(called(stack_named(module, name), text("x")), 4)
    assert f"asks for {module}.{name}, " in attempt(archive(tmp_path / "x.pt", content))


def test_getattr_reaches_nothing(tmp_path: Path):
    function = named("builtins", "getattr")
    owners = {
        "a known function": named("torch._utils", "_rebuild_tensor_v2"),
        "a dict": b"}",
        "an OrderedDict": called(named("collections", "OrderedDict")),
        "a dtype": named("torch", "float32"),
        "an object": called(named("datetime", "timedelta"), number(1)),
    }
    for owner in owners.values():
        content = pickled(called(function, owner, text("__class__")))
        assert "asks for builtins.getattr, " in attempt(archive(tmp_path / "x.pt", content))
    for owner, name in (
        (named("pathlib", "Path"), "touch"),
        (named("mine", "Cls"), "__init__"),
        (named("mine", "Cls"), "a.b"),
    ):
        content = pickled(called(function, owner, text(name)))
        assert "asks for builtins.getattr, " in attempt(archive(tmp_path / "x.pt", content))
    chained = called(function, called(function, named("mine", "Colour"), text("RED")), text("name"))
    assert "asks for builtins.getattr, " in attempt(archive(tmp_path / "x.pt", pickled(chained)))


def test_the_member_of_an_enum_by_getattr_is_inert(tmp_path: Path):
    content = pickled(called(named("__builtin__", "getattr"), named("mine", "Colour"), text("RED")))
    value = load(archive(tmp_path / "x.pt", content))
    assert (type(value), value.path, value.args) == (Inert, "mine.Colour", ("RED",))


def test_a_storage_in_a_pickle_of_its_own_is_not_opened(tmp_path: Path):
    """`pickle.dumps(tensor)`, put into a zip: its storage is a nested torch file, which torch.load would run."""
    content = pickle.dumps({"x": torch.ones(2)})
    assert "torch.storage._load_from_bytes" in attempt(archive(tmp_path / "x.pt", content))


def test_inst_obj_and_extensions(tmp_path: Path):
    touch = text(f"touch {tmp_path / 'canary'}")
    inst = b"(" + touch + b"ios\nsystem\n."
    assert "asks for os.system, " in attempt(archive(tmp_path / "x.pt", inst))
    assert "INST" in attempt(archive(tmp_path / "x.pt", b"(" + touch + b"imine\nCls\n."))
    assert "asks for os.system, " in attempt(archive(tmp_path / "x.pt", b"(" + named("os", "system") + touch + b"o."))
    assert "OBJ" in attempt(archive(tmp_path / "x.pt", b"(" + named("mine", "Cls") + touch + b"o."))
    for extension in (b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00"):
        assert "extension" in attempt(archive(tmp_path / "x.pt", pickled(extension)))
    for other in (b"\x97", b"\x96" + struct.pack("<Q", 1) + b"a\x98", b"P0\n"):
        assert "opcode" in attempt(archive(tmp_path / "x.pt", pickled(other, 5)))


def test_a_known_name_in_another_module_is_not_known(tmp_path: Path):
    path = tmp_path / "x.pt"
    for module, name in (
        ("evil", "_rebuild_tensor_v2"),
        ("evil.torch._utils", "_rebuild_tensor_v2"),
        ("torch", "_utils._rebuild_tensor_v2"),
    ):
        value = load(archive(path, pickled(called(stack_named(module, name), text("x")), 4)))
        assert (type(value), value.path, value.args) == (Inert, f"{module}.{name}", ("x",))
    value = load(archive(path, pickled(called(named("evil", "OrderedDict")))))
    assert (type(value), value.path) == (Inert, "evil.OrderedDict")
    fake = storage(named("evil", "FloatStorage"), "0", 2)
    assert "no storage" in attempt(archive(path, pickled(fake), {"data/0": bytes(8)}))


ATTRIBUTES = b"}" + text("__call__") + text("x") + b"s"
TARGETS = {
    "dict": b"}",
    "list": b"]",
    "set": b"\x8f",
    "Size": called(named("torch", "Size"), whole(1)),
    "function": named("torch._utils", "_rebuild_tensor_v2"),
    "class": named("collections", "OrderedDict"),
    "an inert class": named("mine", "Cls"),
    "dtype": named("torch", "float32"),
    "storage": storage(named("torch", "FloatStorage"), "0", 2),
    "tensor": tensor(2, 0, whole(2), whole(1)),
    "string": text("x"),
}


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_nothing_s_attributes_can_be_set(tmp_path: Path, target: str):
    for state in (ATTRIBUTES, b"N" + ATTRIBUTES + b"\x86"):
        content = pickled(TARGETS[target] + state + b"b", 4)
        assert "sets attributes of a" in attempt(archive(tmp_path / "x.pt", content, {"data/0": bytes(8)}))


def test_state_of_an_ordered_dict_is_dropped_and_others_is_kept_as_data(tmp_path: Path):
    value = load(archive(tmp_path / "x.pt", pickled(called(named("collections", "OrderedDict")) + ATTRIBUTES + b"b")))
    assert (type(value), vars(value)) == (OrderedDict, {})
    value = load(archive(tmp_path / "x.pt", pickled(called(named("mine", "Cls")) + ATTRIBUTES + b"b")))
    assert (value.state, callable(vars(Inert).get("__call__"))) == ({"__call__": "x"}, True)


def test_only_lists_grow_and_only_dicts_have_items(tmp_path: Path):
    for body in (b"}" + text("x") + b"a", b"(t" + text("x") + b"a", named("torch", "Size") + text("x") + b"a"):
        assert "appends to a" in attempt(archive(tmp_path / "x.pt", pickled(body)))
    for body in (b"](" + text("a") + text("b") + b"u", named("torch", "Size") + text("a") + text("b") + b"s"):
        assert "sets items of a" in attempt(archive(tmp_path / "x.pt", pickled(body)))


def test_torch_s_helpers_for_classes_of_tensors_make_nothing(tmp_path: Path):
    rebuild = named("torch._tensor", "_rebuild_from_type_v2")
    system = called(rebuild, named("os", "system"), named("torch", "Tensor"), b"(" + text("x") + b"t", b"}")
    assert "asks for os.system, " in attempt(archive(tmp_path / "x.pt", pickled(system)))
    for function, kind in (
        (named("mine", "make"), named("torch", "Tensor")),
        (named("torch._utils", "_rebuild_tensor_v2"), named("mine", "Cls")),
    ):
        value = load(archive(tmp_path / "x.pt", pickled(called(rebuild, function, kind, b")", b"}"))))
        assert (type(value), value.name) == (Inert, "_rebuild_from_type_v2")
    for name in (
        "_rebuild_wrapper_subclass",
        "_set_obj_state",
        "_rebuild_qtensor",
        "_rebuild_device_tensor_from_numpy",
    ):
        value = load(archive(tmp_path / "x.pt", pickled(called(named("torch._utils", name), named("mine", "Cls")))))
        assert (type(value), value.name) == (Inert, name)
