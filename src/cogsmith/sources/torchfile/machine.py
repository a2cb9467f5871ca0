"""A pickle's opcodes over data alone.

Python's own Unpickler is not used: it lets a pickle set attributes of whatever it has in hand (also of our stand-ins),
reserve gigabytes by naming a high memo slot, and overflow the C stack by a deep key. Here an opcode can do what its
handler says, to lists, dicts, sets and `Inert`, and call nothing but `Known`. The opcodes are decoded by the standard
library's `pickletools`, which documents them.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from cogsmith.sources.torchfile.globals import Harmful, Known, hashable
from cogsmith.sources.torchfile.inert import Inert

MAX_OPERATIONS = 50_000_000
"""An opcode of one byte can make an object of 64: what a pickle may ask for is bounded."""
MAX_NESTING = 200
"""Levels of lists and dicts: what reads them later may be recursive."""

Find = Callable[[str, str], Any]
Persistent = Callable[[Any], Any]


def run(pickle: bytes, find: Find, persistent: Persistent) -> Any:
    """Return what `pickle` (any protocol) describes. `find` gives a global's stand-in, `persistent` a storage.

    Raises Harmful, what the two raise, and ValueError, TypeError, KeyError or IndexError for a damaged pickle.
    """
    machine = _Machine(find, persistent)
    for count, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
        if opcode.name == "STOP":
            break
        if count == MAX_OPERATIONS:
            raise ValueError(f"its pickle has more than {MAX_OPERATIONS} operations")
        handler = _HANDLERS.get(opcode.name)
        if handler is None:
            raise ValueError(f"its pickle uses the opcode {opcode.name}, which torch does not write")
        handler(machine, argument)
    result = machine.stack.pop()
    _check_nesting(result)
    return result


class _Machine:
    def __init__(self, find: Find, persistent: Persistent) -> None:
        self.find = find
        self.persistent = persistent
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def to_mark(self) -> list[Any]:
        """Return what was pushed since the last mark, and take both away."""
        items, self.stack = self.stack, self.outer.pop()
        return items


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _nothing(machine: _Machine, argument: Any) -> None:
    pass


def _mark(machine: _Machine, argument: Any) -> None:
    machine.outer.append(machine.stack)
    machine.stack = []


def _pop(machine: _Machine, argument: Any) -> None:
    # Of nothing since the mark, it takes the mark.
    if machine.stack:
        machine.stack.pop()
    else:
        machine.to_mark()


def _put(machine: _Machine, slot: int) -> None:
    machine.memo[slot] = machine.stack[-1]


def _gather(count: int) -> Callable[[_Machine, Any], None]:
    def handler(machine: _Machine, argument: Any) -> None:
        if len(machine.stack) < count:
            raise IndexError("its pickle takes more than it has")
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return handler


def _collect(make: Callable[[list[Any]], Any]) -> Callable[[_Machine, Any], None]:
    def handler(machine: _Machine, argument: Any) -> None:
        items = machine.to_mark()
        machine.stack.append(make(items))

    return handler


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise ValueError("its pickle sets a key to nothing")
    return {hashable(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _append(machine: _Machine, argument: Any) -> None:
    item = machine.stack.pop()
    _extend(machine, [item])


def _appends(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    _extend(machine, items)


def _extend(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if type(target) not in (list, Inert):
        raise TypeError(f"its pickle appends to a {type(target).__name__}")
    target.extend(items)


def _set_item(machine: _Machine, argument: Any) -> None:
    value = machine.stack.pop()
    key = machine.stack.pop()
    _update(machine, [key, value])


def _set_items(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    _update(machine, items)


def _update(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if type(target) not in (dict, OrderedDict, Inert):
        raise TypeError(f"its pickle sets items of a {type(target).__name__}")
    for key, value in _pairs(items).items():
        target[key] = value


def _add_items(machine: _Machine, argument: Any) -> None:
    items = machine.to_mark()
    target = machine.stack[-1]
    if type(target) is not set:
        raise TypeError(f"its pickle adds members to a {type(target).__name__}")
    target.update(hashable(item) for item in items)


def _global(machine: _Machine, argument: str) -> None:
    # pickletools joins the two lines by a space, so a space within one of them makes the name unclear.
    module, _, name = argument.partition(" ")
    machine.stack.append(machine.find(module, name))


def _stack_global(machine: _Machine, argument: Any) -> None:
    name = machine.stack.pop()
    module = machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise TypeError("its pickle names something by no string")
    machine.stack.append(machine.find(module, name))


def _call(machine: _Machine, argument: Any) -> None:
    args = machine.stack.pop()
    _make(machine, args, {})


def _call_with_keywords(machine: _Machine, argument: Any) -> None:
    keywords = machine.stack.pop()
    args = machine.stack.pop()
    _make(machine, args, keywords)


def _make(machine: _Machine, args: Any, keywords: Any) -> None:
    function = machine.stack.pop()
    if type(args) is not tuple or type(keywords) is not dict or not all(type(key) is str for key in keywords):
        raise TypeError("its pickle calls something with no arguments")
    if type(function) is Known:
        machine.stack.append(function.call(*args, **keywords))
    elif type(function) is Inert and function.args is None:
        machine.stack.append(function(*args, **keywords))
    else:
        raise TypeError(f"its pickle calls a {type(function).__name__}")


def _build(machine: _Machine, argument: Any) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is Inert and target.args is not None:
        target.__setstate__(state)
    elif type(target) is not OrderedDict or type(state) is not dict:
        # An OrderedDict's attributes are what torch keeps beside a state dict (`_metadata`), and no weights.
        raise TypeError(f"its pickle sets attributes of a {type(target).__name__}")


def _persistent_id(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.persistent(machine.stack.pop()))


def _instance(machine: _Machine, argument: str) -> None:
    module, _, name = argument.partition(" ")
    machine.find(module, name)
    raise ValueError("its pickle uses the opcode INST, which torch does not write")


def _extension(machine: _Machine, argument: Any) -> None:
    raise Harmful("copyreg's extension registry")


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), _nothing),
    **dict.fromkeys(("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"), _push),
    **dict.fromkeys(("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _push),
    **dict.fromkeys(("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BYTEARRAY8"), _push),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _put),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda machine, slot: machine.stack.append(machine.memo[slot])),
    "MEMOIZE": lambda machine, _: _put(machine, len(machine.memo)),
    "NONE": lambda machine, _: machine.stack.append(None),
    "NEWTRUE": lambda machine, _: machine.stack.append(True),
    "NEWFALSE": lambda machine, _: machine.stack.append(False),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_TUPLE": lambda machine, _: machine.stack.append(()),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "EMPTY_SET": lambda machine, _: machine.stack.append(set()),
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": lambda machine, _: machine.to_mark().clear(),
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "TUPLE": _collect(tuple),
    "TUPLE1": _gather(1),
    "TUPLE2": _gather(2),
    "TUPLE3": _gather(3),
    "LIST": _collect(list),
    "DICT": _collect(_pairs),
    "FROZENSET": _collect(lambda items: frozenset(hashable(item) for item in items)),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "ADDITEMS": _add_items,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_keywords,
    "BUILD": _build,
    "BINPERSID": _persistent_id,
    "INST": _instance,
    **dict.fromkeys(("EXT1", "EXT2", "EXT4"), _extension),
}


def _check_nesting(value: Any) -> None:
    """Check that lists and dicts do not contain themselves and are not too deep. What is in an `Inert` is not seen."""
    heights: dict[int, int] = {}
    open_ids: set[int] = set()
    pending = [(value, False)]
    while pending:
        current, is_done = pending.pop()
        if is_done:
            open_ids.discard(id(current))
            heights[id(current)] = 1 + max((heights.get(id(child), 0) for child in _children(current)), default=0)
            continue
        if id(current) in heights or not isinstance(current, (list, dict, tuple)):
            continue
        if id(current) in open_ids or len(open_ids) > MAX_NESTING:
            raise ValueError("its pickle describes something that contains itself, or is too deep")
        open_ids.add(id(current))
        pending.append((current, True))
        pending += [(child, False) for child in _children(current)]
    if heights.get(id(value), 0) > MAX_NESTING:
        raise ValueError("its pickle describes something too deep")


def _children(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value
