"""Composer checkpoints by their URI, as a build asks for them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from cogsmith.config.model import Format, Model
from cogsmith.errors import ConversionError
from cogsmith.sources import open_source
from cogsmith.sources.base import Checkpoint

from .runs import FILE, FIXTURES, RUN, SHARDED, Notes, assert_same, config_of, edited, source


def built(uri: str, tmp_path: Path, reporter: Notes | None = None, **keys) -> Checkpoint:
    opened = open_source(Model("name", uri, **keys), tmp_path / "cache")
    return opened.materialise(opened.resolve(), reporter or Notes())


def folder_of(checkpoint: Checkpoint) -> Path:
    (folder,) = {file.origin.parent for file in checkpoint.files}
    return folder


@pytest.mark.parametrize("format", ["auto", "composer"])
@pytest.mark.parametrize("name", ["gpt2_full", "gpt2_tar", SHARDED, "gpt2_newest"])
def test_a_folder(format: Format, name: str, tmp_path: Path):
    assert_same(folder_of(built(f"path:{source(name, tmp_path)}", tmp_path, format=format)), name)


def test_a_file(tmp_path: Path):
    assert_same(folder_of(built(f"path:{FIXTURES / RUN / FILE}", tmp_path)), RUN)


def test_a_run_is_converted_once(tmp_path: Path):
    first, again = (built(f"path:{FIXTURES / RUN}", tmp_path) for _ in range(2))
    assert first == again
    other = built(f"path:{FIXTURES / RUN}", tmp_path, output_precision="bf16")
    assert folder_of(other) != folder_of(first)
    assert json.loads((folder_of(other) / "config.json").read_bytes())["dtype"] == "bfloat16"


def test_without_a_tokenizer_there_is_a_warning(tmp_path: Path):
    notes = Notes()
    built(f"path:{FIXTURES / 'gpt2_no_tokenizer'}", tmp_path, notes)
    assert [line for line in notes.lines if "without a tokenizer" in line and "tokenizer names one" in line]
    notes = Notes()
    built(f"path:{FIXTURES / RUN}", tmp_path, notes)
    assert notes.lines == []


def test_a_tokenizer_by_its_uri(tmp_path: Path):
    own = folder_of(built(f"path:{FIXTURES / RUN}", tmp_path))
    notes = Notes()
    made = built(f"path:{FIXTURES / 'gpt2_no_tokenizer'}", tmp_path, notes, tokenizer=f"path:{own}")
    assert "tokenizer.json" in {file.path for file in made.files}
    assert notes.lines == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda weights: weights.update({"model.transformer.ln_f.weight": torch.ones(9)}), "ln_f.weight has the shape"),
        (lambda weights: weights.pop("model.transformer.ln_f.weight"), "ln_f.weight is missing"),
        (lambda weights: weights.update({"model.transformer.more.weight": torch.ones(9)}), "more.weight has no place"),
    ],
)
def test_weights_of_another_model(change, word: str, tmp_path: Path):
    run = edited(RUN, tmp_path, lambda state: change(state["model"]))
    with pytest.raises(ConversionError, match=word):
        built(f"path:{run}", tmp_path)
    assert not [path for path in (tmp_path / "cache" / "composer").iterdir()]


_CONVERT = """
import resource, sys
from pathlib import Path
from tests.sources.composer.runs import convert, FIXTURES
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
convert(FIXTURES / "gpt2_no_tokenizer", Path(sys.argv[2]) / "small")
before = peak()
convert(Path(sys.argv[1]), Path(sys.argv[2]) / "large", output_precision="fp32")
print(peak() - before)
"""


@pytest.mark.slow
def test_memory_holds_one_copy(tmp_path: Path):
    """From bf16 to fp32: a model that was loaded, then cast, would take three times the file."""

    def grow(state: dict) -> None:
        config_of(state).update(n_layer=12, n_embd=1024)
        with torch.device("meta"):
            model = GPT2LMHeadModel(GPT2Config(**config_of(state)))
        state["model"] = {
            f"model.{name}": torch.zeros(tensor.shape, dtype=torch.bfloat16)
            for name, tensor in model.state_dict().items()
        }

    run = edited("gpt2_no_tokenizer", tmp_path, grow)
    size = (run / FILE).stat().st_size
    assert size > 250_000_000
    root = Path(__file__).parents[3]
    answer = subprocess.run(
        [sys.executable, "-c", _CONVERT, str(run), str(tmp_path)],
        capture_output=True, text=True, check=True, cwd=root, env={"PYTHONPATH": f"{root}:{root / 'src'}", "PATH": ""},
    )  # fmt: skip
    assert int(answer.stdout) < 1.3 * size
