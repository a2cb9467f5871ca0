"""torch's files read without running them: the truth is torch's own `torch.load`."""

from __future__ import annotations

import datetime
import io
import subprocess
import sys
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cogsmith.errors import SourceError
from cogsmith.sources.torchfile import Inert, load, mapping

from .pickles import pickled, tensor, whole

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32, torch.uint64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


def same(ours: torch.Tensor, truth: torch.Tensor) -> bool:
    """Same to the bit, in the same layout."""
    assert (ours.dtype, ours.shape, ours.stride()) == (truth.dtype, truth.shape, truth.stride())
    return ours.contiguous().reshape(-1).view(torch.uint8).equal(truth.contiguous().reshape(-1).view(torch.uint8))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_dtype_comes_back_to_the_bit(tmp_path: Path, dtype: torch.dtype, protocol: int):
    torch.manual_seed(0)
    source = torch.randint(0, 256, (6, 16), dtype=torch.uint8)
    source = source.gt(99) if dtype is torch.bool else source.view(dtype)
    path = saved(tmp_path / "x.pt", {"x": source}, pickle_protocol=protocol)
    # torch's own careful reader knows protocols 2 and 3 only; the file is ours.
    assert same(load(path)["x"], torch.load(path, weights_only=protocol < 4)["x"])


def test_views_strides_and_empty_tensors_are_as_torch_reads_them(tmp_path: Path):
    base = torch.arange(24.0).reshape(4, 6)
    tensors = {
        "base": base,
        "transposed": base.T,
        "strided": base[1::2, ::3],
        "scalar": base[2, 3],
        "expanded": torch.ones(1, 3).expand(5, 3),
        "empty": torch.zeros(0, 4),
        "empty_in_the_middle": torch.zeros(2, 0, 4).to(torch.bfloat16),
        "parameter": torch.nn.Parameter(base.clone()),
        "channels_last": torch.rand(1, 3, 4, 4).to(memory_format=torch.channels_last),
    }
    path = saved(tmp_path / "x.pt", tensors)
    ours, truth = load(path), torch.load(path, weights_only=True)
    assert list(ours) == list(truth)
    for name, value in truth.items():
        assert same(ours[name], value.detach()), name
    assert type(ours["parameter"]) is torch.Tensor
    assert not ours["parameter"].requires_grad


def test_tensors_of_one_storage_stay_one(tmp_path: Path):
    base = torch.arange(10.0)
    ours = load(saved(tmp_path / "x.pt", {"head": base, "tied": base, "part": base[4:6], "other": base.clone()}))
    assert ours["head"].data_ptr() == ours["tied"].data_ptr() != ours["other"].data_ptr()
    assert ours["part"].data_ptr() == ours["head"].data_ptr() + 16
    assert ours["part"].untyped_storage().data_ptr() == ours["head"].untyped_storage().data_ptr()


def test_tensors_are_views_of_the_file_and_never_change_it(tmp_path: Path):
    path = saved(tmp_path / "x.pt", {"x": torch.ones(1000)})
    before = path.read_bytes()
    ours, again = load(path)["x"], load(path)["x"]
    ours.mul_(7)
    assert ours.sum() == 7000
    assert again.sum() == 1000
    assert path.read_bytes() == before
    path.unlink()
    assert again.sum() == 1000


def test_tensors_outlive_everything_else(tmp_path: Path):
    kept = [load(saved(tmp_path / f"{i}.pt", {"x": torch.full((50_000,), float(i))}))["x"][10:20] for i in range(20)]
    assert [tensor.unique().tolist() for tensor in kept] == [[float(i)] for i in range(20)]


def test_storages_that_cross_windows_of_the_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tensors = {str(i): torch.randn(3000 + 700 * i) for i in range(12)}
    path = saved(tmp_path / "x.pt", tensors)
    monkeypatch.setattr(mapping, "WINDOW_BYTES", 4 * 4096)
    assert all(torch.equal(load(path)[name], value) for name, value in tensors.items())


def test_values_that_are_no_tensors(tmp_path: Path):
    values = {
        "bytes": b"\x00\xff\n",
        "bytearray": bytearray(b"ab"),
        "nested": [{"a": (1, 2.5, None, True)}, "ü", 2**70, -1],
        "set": {1, 2},
        "frozen": frozenset({"a"}),
        "complex": 1 + 2j,
        "ordered": OrderedDict(z=1, a=2),
        "default": defaultdict(list, {"a": [1]}),
        "counter": Counter("aab"),
        "dtype": torch.bfloat16,
        "keys": {(1, "a"): 2, 3: 4, None: 5, 1.5: 6},
    }
    for protocol in (2, 3, 4, 5):
        ours = load(saved(tmp_path / "x.pt", values, pickle_protocol=protocol))
        assert ours == values | {"default": {"a": [1]}, "counter": {"a": 2, "b": 1}}
    assert load(saved(tmp_path / "x.pt", torch.Size([2, 3]))) == (2, 3)


class Mine:
    """A class that the file's reader does not have."""

    def __init__(self) -> None:
        self.weight = torch.ones(2)


class MyDict(dict):
    """A dict with a class of its own."""


class MyList(list):
    """A list with a class of its own."""


def test_other_objects_are_inert(tmp_path: Path):
    values = {
        "version": torch.__version__,
        "time": datetime.timedelta(seconds=3),
        "numbers": np.arange(3),
        "options": Namespace(lr=1),
        "path": Path("a/b"),
        "mine": Mine(),
        "dict": MyDict(a=1),
        "list": MyList([1, 2]),
        "class": Mine,
        "sparse": torch.eye(2).to_sparse(),
        "device": torch.device("cpu"),
    }
    for protocol in (2, 4):
        ours = load(saved(tmp_path / "x.pt", values, pickle_protocol=protocol))
        assert all(type(value) is Inert for value in ours.values())
        assert (ours["version"].path, ours["version"].args) == (
            "torch.torch_version.TorchVersion",
            (str(torch.__version__),),
        )
        assert ours["time"].args == (0, 3, 0)
        assert ours["options"].state == {"lr": 1}
        assert (ours["mine"].name, ours["mine"].state["weight"].tolist()) == ("Mine", [1, 1])
        assert ours["dict"].pairs == [("a", 1)]
        assert ours["list"].items == [1, 2]
        assert ours["class"].args is None
        assert ours["sparse"].path == "torch._utils._rebuild_sparse_tensor"


def test_tensors_with_attributes_are_the_tensors(tmp_path: Path):
    tensor, parameter = torch.ones(2), torch.nn.Parameter(torch.zeros(3))
    tensor.mark, parameter.mark = "a", "b"
    ours = load(saved(tmp_path / "x.pt", {"t": tensor, "p": parameter}))
    assert (ours["t"].tolist(), ours["p"].tolist()) == ([1, 1], [0, 0, 0])


def test_a_state_dict_with_its_metadata(tmp_path: Path):
    layer = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    ours = load(saved(tmp_path / "x.pt", layer.state_dict()))
    assert list(ours) == list(layer.state_dict())
    assert all(torch.equal(ours[name], value) for name, value in layer.state_dict().items())


def test_a_bare_storage(tmp_path: Path):
    ours = load(saved(tmp_path / "x.pt", {"s": torch.arange(3, dtype=torch.uint8).untyped_storage()}))
    assert ours["s"].data.tolist() == [0, 1, 2]


def test_any_folder_name_and_no_byte_order(tmp_path: Path):
    path = saved(tmp_path / "ep0-ba2.pt", {"x": torch.ones(2)}, _disable_byteorder_record=True)
    assert b"ep0-ba2/data.pkl" in path.read_bytes()
    assert load(path)["x"].tolist() == [1, 1]


def test_checksums_that_torch_was_told_to_leave_out(tmp_path: Path):
    torch.serialization.set_crc32_options(False)
    try:
        path = saved(tmp_path / "x.pt", {"x": torch.ones(2)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert load(path)["x"].tolist() == [1, 1]


def test_the_package_is_known_without_torch():
    code = "import sys, cogsmith.sources.torchfile; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


class Sparse(io.FileIO):
    """A file in which a block of zeros is a hole."""

    def write(self, data: Any) -> int:
        if data == ZEROS:
            self.seek(len(data), io.SEEK_CUR)
            return len(data)
        return super().write(data)


ZEROS = bytes(2**26)


@pytest.mark.slow
def test_a_file_over_4_gb_whose_directory_is_zip64(tmp_path: Path):
    count = 5 * 2**28
    with Sparse(tmp_path / "x.pt", "w+") as file, zipfile.ZipFile(file, "w") as content:
        with content.open(zipfile.ZipInfo("archive/data/0"), "w", force_zip64=True) as stream:
            for _ in range(79):
                stream.write(ZEROS)
            stream.write(torch.arange(2.0**24).numpy().tobytes())
        content.writestr("archive/data/1", torch.tensor([7.0]).numpy().tobytes())
        kept = pickled(b"(" + tensor(count, 0, whole(count), whole(1)) + tensor(1, 0, whole(1), whole(1), "1") + b"t")
        content.writestr("archive/data.pkl", kept)
    path = tmp_path / "x.pt"
    big, small = load(path)
    assert big.shape == (count,)
    assert (big[79 * 2**24 - 1 : 79 * 2**24 + 3].tolist(), small.tolist()) == ([0, 0, 1, 2], [7])
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 10)
    with pytest.raises(SourceError, match="zip directory"):
        load(path)
