"""Checkpoints of data/, taken apart and put together again by the format's own rules, and read as the product does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file

from cogsmith.sources.accessory import AccessoryImporter
from cogsmith.sources.base import SourceFile
from cogsmith.sources.importer import Listing, Options, Part
from cogsmith.sources.silent import Silent

DATA = Path(__file__).parent / "data"
SINGLE = "consolidated.00-of-01.model.pth"

COLUMNS = r"(?<!self_)attention\.w[qkv]|feed_forward\.w[13]|self_attention\.wq|mlp\.dense_h_to_4h"
ROWS = r"attention\.wo|feed_forward\.w2|self_attention\.dense|mlp\.dense_4h_to_h"
EXPERTS = r"feed_forward\.w[123]$"


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def part(folder):
    return Part(f"path:{folder}", {path.name: path for path in sorted(folder.iterdir())})


def listing(folder):
    files = [SourceFile(path.name, path.stat().st_size) for path in sorted(folder.iterdir())]
    return Listing(f"path:{folder}", tuple(files))


def convert(folders, out, *, reporter=None, **options):
    """Select and convert as ConvertedSource does: only what was selected is there."""
    out.mkdir()
    importer, chosen = AccessoryImporter(), Options(**options)
    files = importer.select([listing(folder) for folder in folders], chosen)
    parts = [
        Part(f"path:{folder}", {file.path: folder / file.path for file in selected})
        for folder, selected in zip(folders, files, strict=True)
    ]
    importer.convert(parts, chosen, out, reporter or Silent())
    return out


def expected(case):
    """Return what LLaMA2-Accessory computed for a folder of data/: ids, logits, greedy ids."""
    stated = json.loads((DATA / case / "expected.json").read_text())
    return {**stated, "logits": load_file(DATA / case / "expected.safetensors")["logits"]}


def shards(folder):
    """Return the shards' tensors in the order of their ranks, without `llma.`."""
    loaded = [torch.load(path, weights_only=True) for path in sorted(folder.glob("consolidated.*.pth"))]
    return [{key.removeprefix("llma."): value for key, value in shard.get("model", shard).items()} for shard in loaded]


def axis(name):
    """Return the dimension along which a tensor is cut, from the format's description; None for a replica."""
    if re.search(r"(tok|word)_embeddings", name):
        return 1
    if name == "output.weight" or re.search(rf"({COLUMNS})\.(weight|bias|lora_b\.weight)$", name):
        return 0
    return 1 if re.search(rf"({ROWS})\.(weight|lora_a\.weight)$", name) else None


def whole(folder, experts=4):
    """Put the shards of a folder together."""
    pieces = shards(folder)
    merged = {}
    for name in {name: None for shard in pieces for name in shard}:
        found = [shard[name] for shard in pieces if name in shard]
        if re.search(EXPERTS, name):
            merged[name] = torch.cat([piece.view(experts, -1, piece.shape[-1]) for piece in found], 1).flatten(0, 1)
        else:
            merged[name] = found[0] if axis(name) is None else torch.cat(found, axis(name))
    return merged


def write_shard(folder, rank, count, tensors, family="model"):
    state = {f"llma.{name}": tensor.contiguous().clone() for name, tensor in tensors.items()}
    torch.save({"model": state}, folder / f"consolidated.{rank:02d}-of-{count:02d}.{family}.pth")


def split(case, folder, count, experts=4):
    """Write a folder of data/ again, in `count` shards."""
    folder.mkdir()
    tensors = whole(DATA / case, experts)
    for rank in range(count):
        write_shard(folder, rank, count, shard(tensors, rank, count, experts))
    copy_side_files(DATA / case, folder)
    return folder


def shard(tensors, rank, count, experts=4):
    """Return what one of `count` shards holds."""
    cut = {}
    for name, tensor in tensors.items():
        owner = re.search(r"experts\.(\d+)\.", name)
        if owner:
            if int(owner[1]) * count // experts == rank:
                cut[name] = tensor
        elif re.search(EXPERTS, name):
            cut[name] = tensor.view(experts, -1, tensor.shape[-1]).chunk(count, 1)[rank].flatten(0, 1)
        else:
            cut[name] = tensor if axis(name) is None else tensor.chunk(count, axis(name))[rank]
    return cut


def copy_side_files(source, folder):
    for path in source.iterdir():
        if not path.name.startswith(("consolidated", "expected")):
            shutil.copyfile(path, folder / path.name)


def copy(case, folder):
    """Return a copy of a folder of data/ that may be changed."""
    shutil.copytree(DATA / case, folder)
    for path in folder.glob("expected.*"):
        path.unlink()
    return folder


def change_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
