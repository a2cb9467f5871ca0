"""Weights written one by one: the truth is the safetensors library, and transformers for the shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig

from cogsmith.errors import ConversionError
from cogsmith.sources.safetensors_file import read_header
from cogsmith.sources.write_safetensors import LazyTensor, write_bin, write_checkpoint

from .checkpoints import Watcher

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.uint16, torch.uint32, torch.uint64, torch.complex64, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
]  # fmt: skip


def lazy(name: str, tensor: torch.Tensor) -> LazyTensor:
    return LazyTensor(name, tensor.dtype, tuple(tensor.shape), lambda: tensor)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def random(dtype: torch.dtype) -> torch.Tensor:
    content = torch.randint(0, 256, (3, 5, dtype.itemsize), dtype=torch.uint8)
    return content.gt(99) if dtype is torch.bool else content.view(dtype)


def test_every_dtype_reads_back_to_the_bit(tmp_path: Path):
    torch.manual_seed(0)
    tensors = {f"{dtype}": random(dtype) for dtype in DTYPES}
    assert write_checkpoint(tmp_path, [lazy(*item) for item in tensors.items()]) == (tmp_path / "model.safetensors",)
    loaded = load_file(tmp_path / "model.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape), name
        assert raw(loaded[name]) == raw(tensor), name


def test_any_strides_scalars_and_empty_tensors(tmp_path: Path):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "transposed": base.T,
        "strided": base[1::2, ::3],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.zeros(0, 4, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(base[0].clone()),
        'odd name ü."weight"': torch.ones(1, dtype=torch.uint8),
    }
    write_checkpoint(tmp_path, [lazy(*item) for item in tensors.items()])
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "model.safetensors", "pt") as content:
        assert content.metadata() == {"format": "pt"}


def test_all_numbers_lie_aligned(tmp_path: Path):
    dtypes = [torch.uint8, torch.float32, torch.bool, torch.bfloat16, torch.int64]
    tensors = [lazy(f"{i}{dtype}", torch.ones(i, dtype=dtype)) for i, dtype in enumerate(dtypes, start=3)]
    path = write_checkpoint(tmp_path, tensors)[0]
    begin = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    places = {tensor.name: begin + tensor.start for tensor in read_header(path)}
    assert begin % 8 == 0
    assert all(places[tensor.name] % tensor.dtype.itemsize == 0 for tensor in tensors)


def test_shards_hold_what_they_may_and_transformers_loads_them(tmp_path: Path):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2}
    model = AutoModelForCausalLM.from_config(LlamaConfig(vocab_size=99, **shape)).eval()
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    watcher = Watcher()
    paths = write_checkpoint(tmp_path, [lazy(*item) for item in state.items()], shard_bytes=20_000, reporter=watcher)
    *shards, index = paths
    assert [path.name for path in shards] == [
        f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)
    ]
    assert len(shards) > 2
    assert all(sum(tensor.end - tensor.start for tensor in read_header(path)) <= 20_000 for path in shards)
    content = json.loads(index.read_text())
    assert content["metadata"]["total_size"] == sum(tensor.nbytes for tensor in state.values())
    assert content["weight_map"] == {t.name: path.name for path in shards for t in read_header(path)}
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    ids = torch.tensor([[1, 5, 7]])
    assert torch.equal(again(ids).logits, model(ids).logits)
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in paths)


def test_a_tensor_bigger_than_a_shard_is_a_shard(tmp_path: Path):
    tensors = [lazy("a", torch.ones(10)), lazy("b", torch.ones(1000)), lazy("c", torch.ones(10))]
    paths = write_checkpoint(tmp_path, tensors, shard_bytes=100)
    assert [[t.name for t in read_header(path)] for path in paths[:-1]] == [["a"], ["b"], ["c"]]


def test_one_tensor_lives_at_a_time(tmp_path: Path):
    import weakref

    made: list[weakref.ref[torch.Tensor]] = []
    alive: list[int] = []

    def make() -> torch.Tensor:
        alive.append(sum(reference() is not None for reference in made))
        tensor = torch.ones(4, 8).T
        made.append(weakref.ref(tensor))
        return tensor

    write_checkpoint(tmp_path, [LazyTensor(f"t{i}", torch.float32, (8, 4), make) for i in range(6)], shard_bytes=300)
    assert alive == [0] * 6


@pytest.mark.parametrize("made", [torch.ones(3), torch.ones(2, dtype=torch.bfloat16), torch.ones(1, 2)])
def test_what_comes_out_other_than_announced_leaves_nothing(tmp_path: Path, made: torch.Tensor):
    wrong = LazyTensor("b", torch.float32, (2,), lambda: made)
    for write in (write_checkpoint, write_bin):
        with pytest.raises(ConversionError, match=r"tensor b came out as .*, and was announced as torch.float32 \[2\]"):
            write(tmp_path, [lazy("a", torch.ones(2)), wrong])
    with pytest.raises(ConversionError):
        write_checkpoint(tmp_path, [lazy("a", torch.ones(2)), wrong], shard_bytes=8)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written(tmp_path: Path):
    one = lazy("a", torch.ones(2))
    with pytest.raises(ConversionError, match="no tensors"):
        write_checkpoint(tmp_path, [])
    with pytest.raises(ConversionError, match="more than one tensor would be named a"):
        write_checkpoint(tmp_path, [one, one])
    with pytest.raises(ConversionError, match=r"no such numbers: c \(torch.complex128\)"):
        write_checkpoint(tmp_path, [one, lazy("c", torch.ones(2, dtype=torch.complex128))])
    assert list(tmp_path.iterdir()) == []


def test_pytorch_model_bin(tmp_path: Path):
    base = torch.arange(24.0).reshape(4, 6)
    path = write_bin(tmp_path, [lazy("a", base[0]), lazy("b", base.T.to(torch.bfloat16))])
    loaded = torch.load(path, weights_only=True)
    assert path.name == "pytorch_model.bin"
    assert torch.equal(loaded["a"], base[0])
    assert torch.equal(loaded["b"], base.T.to(torch.bfloat16))
    assert loaded["a"].untyped_storage().nbytes() == 24
    assert path.stat().st_mode & 0o777 == 0o644
