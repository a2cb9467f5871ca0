"""`cogsmith check --weights`: each fault that is planted is found, and nothing in a checkpoint that is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from cogsmith.config.model import Model, Project
from cogsmith.sources import open_source
from cogsmith.sources.safetensors_file import read_header
from cogsmith.workdir.build import build
from cogsmith.workdir.check_weights import check_weights

from ..sources.checkpoints import Watcher

LLAMA = transformers.LlamaConfig(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
)
SHARD, OTHER, INDEX = (
    "checkpoints/model-00001-of-00002.safetensors",
    "checkpoints/model-00002-of-00002.safetensors",
    "checkpoints/model.safetensors.index.json",
)


def save_tokenizer(folder: Path) -> None:
    pre = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre.alphabet()))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A work directory with a tiny model in two shards, built as a user's is."""
    monkeypatch.setenv("COGSMITH_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    original = tmp_path / "original"
    transformers.AutoModelForCausalLM.from_config(LLAMA).save_pretrained(original, max_shard_size="40KB")
    save_tokenizer(original)
    models = {"tiny": Model("tiny", f"path:{original}")}
    build(Project(tmp_path / "config.toml", None, models), reporter=Watcher(), open_source=open_source)
    for path in (tmp_path / "work/tiny/checkpoints").iterdir():
        # Apart from the original, so that a fault is planted in one place.
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        # Old enough for its digest to be remembered.
        os.utime(path, ns=(0, 10**18))
    return tmp_path / "work/tiny"


def problems(folder: Path) -> list[str]:
    return [f"{problem.where}: {problem.message}" for problem in check_weights(folder, Watcher()).problems]


def test_a_whole_checkpoint_is_counted(folder: Path):
    account = check_weights(folder, Watcher())
    files = list((folder / "checkpoints").iterdir())
    assert account.problems == []
    assert account.files == len(files)
    assert account.size == sum(path.stat().st_size for path in files)
    assert account.tensors == len(transformers.AutoModelForCausalLM.from_config(LLAMA).state_dict())


def flip_byte(folder: Path) -> None:
    path = folder / SHARD
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def flip_byte_unnoticed(folder: Path) -> None:
    """As a failing disk does it: the size and all times stay, so that a remembered digest would still be believed."""
    before = (folder / SHARD).stat()
    with (folder / SHARD).open("r+b") as stream:
        stream.seek(-5, os.SEEK_END)
        byte = stream.read(1)
        stream.seek(-5, os.SEEK_END)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(folder / SHARD, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(folder: Path) -> None:
    (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-8])


def edit_tensors(edit: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / OTHER)
        edit(tensors)
        save_file(tensors, folder / OTHER, {"format": "pt"})

    return apply


def add_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.extra"] = torch.zeros(2)


def rename_tensor(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.norm.wight"] = tensors.pop("model.norm.weight")


def swap_in_index(folder: Path) -> None:
    content = json.loads((folder / INDEX).read_text())
    content["weight_map"]["model.norm.weight"] = Path(SHARD).name
    (folder / INDEX).write_text(json.dumps(content))


ALTERED = "not what cogsmith.lock says: altered since it was built"
FAULTS: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "a flipped byte": (flip_byte, [f"{SHARD}: {ALTERED}"]),
    "a flipped byte that the file system does not show": (flip_byte_unnoticed, [f"{SHARD}: {ALTERED}"]),
    "a truncated file": (cut, [f"{SHARD}: {ALTERED}", f"{SHARD}: not a sound safetensors file"]),
    "a missing shard": (
        lambda folder: (folder / OTHER).unlink(),
        [f"{OTHER}: missing", f"{INDEX}: names {Path(OTHER).name}, which is missing"],
    ),
    "an extra tensor": (
        edit_tensors(add_tensor),
        [f"{OTHER}: {ALTERED}", f"{INDEX}: does not name tensor model.extra of {Path(OTHER).name}"],
    ),
    "a renamed tensor": (
        edit_tensors(rename_tensor),
        [
            f"{OTHER}: {ALTERED}",
            f"{INDEX}: {Path(OTHER).name} lacks tensor model.norm.weight",
            f"{INDEX}: does not name tensor model.norm.wight of {Path(OTHER).name}",
        ],
    ),
    "an index that is wrong": (
        swap_in_index,
        [
            f"{INDEX}: {ALTERED}",
            f"{INDEX}: {Path(SHARD).name} lacks tensor model.norm.weight",
            f"{INDEX}: does not name tensor model.norm.weight of {Path(OTHER).name}",
        ],
    ),
    "an index that is none": (
        lambda folder: (folder / INDEX).write_text("{"),
        [f"{INDEX}: {ALTERED}", f"{INDEX}: not an index of tensors"],
    ),
    "an extra file": (
        lambda folder: (folder / "checkpoints/more.safetensors").write_bytes((folder / OTHER).read_bytes()),
        [
            "checkpoints/more.safetensors: not in cogsmith.lock: nothing that was built",
            f"{INDEX}: does not name tensor {{first}} of more.safetensors",
        ],
    ),
    "an extra file in a folder": (
        lambda folder: [(folder / "checkpoints/a").mkdir(), (folder / "checkpoints/a/b.txt").write_text("b")],
        ["checkpoints/a/b.txt: not in cogsmith.lock: nothing that was built"],
    ),
    "no lock": (
        lambda folder: (folder.parent.parent / "cogsmith.lock").unlink(),
        ["tiny: not in the lock, so that no digest is known"],
    ),
    "a lock that is none": (
        lambda folder: (folder.parent.parent / "cogsmith.lock").write_text("{"),
        ["cogsmith.lock: {lock}"],
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_and_no_other(folder: Path, name: str):
    plant, expected = FAULTS[name]
    if name == "a flipped byte that the file system does not show":
        # So that there is a digest to be remembered wrongly.
        assert problems(folder) == []
    first = min(tensor.name for tensor in read_header(folder / OTHER))
    plant(folder)
    found = problems(folder)
    expected = [line.replace("{first}", first) for line in expected]
    assert len(found) == len(expected)
    assert all(have.startswith(want.partition("{")[0]) for have, want in zip(found, expected, strict=True)), found
    assert all(problem.fix for problem in check_weights(folder, Watcher()).problems)


def test_all_faults_at_once(folder: Path):
    flip_byte(folder)
    (folder / "checkpoints/more.txt").write_text("x")
    (folder / "checkpoints/config.json").unlink()
    assert problems(folder) == [
        "checkpoints/config.json: missing",
        f"{SHARD}: {ALTERED}",
        "checkpoints/more.txt: not in cogsmith.lock: nothing that was built",
    ]


def as_built(folder: Path) -> Path:
    """The checkpoint alone, which no lock knows: what is left to find are faults in what was built."""
    return folder / "checkpoints"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_hidden_layers": 3}, "is missing"),
        ({"num_hidden_layers": 1}, "has no place in it"),
        ({"vocab_size": 65}, "has the shape"),
        ({"model_type": "lama"}, "model_type 'lama'"),
    ],
)
def test_every_tensor_is_the_models(folder: Path, change: dict[str, object], words: str):
    path = as_built(folder) / "config.json"
    assert problems(as_built(folder)) == []
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    (found,) = problems(as_built(folder))
    assert words in found


def test_a_checkpoint_that_no_lock_knows_says_so(folder: Path):
    watcher = Watcher()
    assert check_weights(as_built(folder), watcher).problems == []
    assert "no digest to compare" in " ".join(watcher.notes)


def test_a_tokenizer_that_is_read_differently_from_its_file(folder: Path):
    # A class that is built anew from vocabulary and merges, with LLaMA's own normalization in place of the file's.
    content = {
        "tokenizer_class": "GemmaTokenizer",
        "unk_token": "a",
        "bos_token": "b",
        "eos_token": "c",
        "pad_token": "d",
    }
    (as_built(folder) / "tokenizer_config.json").write_text(json.dumps(content | {"mask_token": "e"}))
    (found,) = problems(as_built(folder))
    assert "the saved tokenizer reads" in found


def test_a_tokenizer_that_cannot_be_loaded(folder: Path):
    (as_built(folder) / "tokenizer.json").write_text("{")
    (found,) = problems(as_built(folder))
    assert "cannot load the tokenizer" in found


@pytest.mark.slow
def test_the_command_says_what_it_read_and_fails_on_a_fault(folder: Path):
    def run(name: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "cogsmith.cli.main", "check", name, "--weights"]
        done = subprocess.run(
            command, cwd=folder.parent.parent, capture_output=True, text=True, timeout=120, check=False
        )
        return done.returncode, done.stdout

    account = check_weights(folder, Watcher())
    code, text = run("tiny")
    assert code == 0, text
    assert text.startswith(f"work/tiny: ok: {account.files} files, ")
    assert f", {account.tensors} tensors" in text
    assert run("work/tiny/checkpoints")[0] == 0
    flip_byte(folder)
    (folder / "push").unlink()
    code, text = run("tiny")
    assert code == 1
    assert text.count("altered since it was built") == 1
    assert "push: missing" in text
