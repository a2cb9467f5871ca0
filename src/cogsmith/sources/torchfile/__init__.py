"""PyTorch's files of weights (`torch.save`), read without running them: a pickle is a program, and this is no runner.

    load             a file -> dicts, lists, numbers, and tensors that are views of the mapped file
    ├── archive      the zip: which record lies where, every place checked
    ├── machine      the pickle's opcodes, over data alone
    │   ├── globals  what a name in a pickle means: refused, known, or inert
    │   └── inert    the stand-in for every class and function that is not known
    ├── tensors      torch's own rebuilding functions, as data
    ├── mapping      parts of a file as memory
    └── foreign      what a file is that is no such zip
    containers       tar archives and compressed files around one
    └── decompress   the methods of compression
    distributed      torch.distributed.checkpoint folders (`.metadata` and `*.distcp`)
    ├── layout       what such a folder says about itself
    └── shards       checkpoints in pieces of other kinds, which are refused

Nothing here imports torch before a file is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cogsmith.sources.torchfile.inert import Inert

__all__ = ["Inert", "load"]


def load(path: Path) -> Any:
    """Return what `torch.save` put into the zip file at `path`, with nothing of it run or imported.

    Tensors are views of the file, mapped: they cost no memory until they are read, keep the mapping alive, and writing
    to one changes neither the file nor another load of it. Do not shorten the file while they live. Parameters come
    as plain tensors; dicts, lists, tuples, sets, numbers, strings and bytes as themselves; any other object as `Inert`.

    Raises SourceError where the file is missing, damaged, cut short, no zip of torch's, or where its pickle asks for
    something harmful, which is then named.
    """
    from cogsmith.sources.torchfile.reading import read_file

    return read_file(path)
