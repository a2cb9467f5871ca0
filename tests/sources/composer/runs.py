"""The recorded training runs, and ways to change one."""

from __future__ import annotations

import copy
import json
import tarfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file

from cogsmith.sources import torchfile
from cogsmith.sources.base import SourceFile
from cogsmith.sources.composer import ComposerImporter
from cogsmith.sources.importer import Listing, Options, Part
from cogsmith.sources.silent import Silent
from cogsmith.sources.verify import verify_folder

FIXTURES = Path(__file__).parent / "fixtures"
SHARDED, NEWEST = "gpt2_sharded", "gpt2_newest"
RUN = "gpt2_weights_only"
"""The run that SHARDED and NEWEST are other forms of."""
ADAPTER_ALONE = "lora_only"
CASES = sorted({path.name for path in FIXTURES.iterdir() if path.is_dir()} - {ADAPTER_ALONE} | {SHARDED})
FILE = "ep0-ba2-rank0.pt"


class Notes(Silent):
    """A Reporter that remembers what was said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def task(self, label: str, total: int | None = None, *, unit: str = "bytes"):
        yield self


def source(name: str, tmp_path: Path) -> Path:
    """The folder of a recorded run; that with shards is kept packed."""
    if name != SHARDED:
        return FIXTURES / name
    with tarfile.open(FIXTURES / f"{SHARDED}.tar.xz") as packed:
        packed.extractall(tmp_path / SHARDED, filter="data")
    return tmp_path / SHARDED


def listing(folder: Path) -> Listing:
    """What lies in `folder`, hidden files too."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return Listing(
        f"path:{folder}", tuple(SourceFile(path.relative_to(folder).as_posix(), path.stat().st_size) for path in paths)
    )


def convert(folder: Path, target: Path, reporter: Silent | None = None, **options: Any) -> Path:
    """Convert the checkpoint in `folder` into the new folder `target`, as ConvertedSource does."""
    importer, chosen = ComposerImporter(), Options(**options)
    there = listing(folder)
    assert importer.recognises(there.files)
    (files,) = importer.select([there], chosen)
    target.mkdir(parents=True)
    places = {file.path: folder / file.path for file in files}
    importer.convert([Part(there.uri, places)], chosen, target, reporter or Silent())
    verify_folder(target, own_code=chosen.own_code)
    return target


def edited(name: str, tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """A folder with the checkpoint of a recorded run in which `change` altered the state."""
    state = torchfile.load(FIXTURES / name / FILE)["state"]
    tensors = {key: tensor.clone() for key, tensor in state["model"].items()}
    taken = {"model": tensors, "integrations": copy.deepcopy(state["integrations"])}
    change(taken)
    folder = tmp_path / f"edited-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    torch.save({"state": taken}, folder / FILE)
    return folder


def classify(state: dict[str, Any]) -> None:
    """Make the run of a BertForMaskedLM one of a BertForSequenceClassification."""
    config = config_of(state)
    config.update(architectures=["BertForSequenceClassification"], id2label={"0": "a", "1": "b", "2": "c"})
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(transformers.BertConfig(**config))
    state["model"] = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    model_of(state)["config"]["class"] = "transformers.models.bert.modeling_bert.BertForSequenceClassification"


def model_of(state: dict[str, Any]) -> dict[str, Any]:
    """What a state says of the model: its config's content, its class, its adapter's config."""
    return state["integrations"]["huggingface"]["model"]


def config_of(state: dict[str, Any]) -> dict[str, Any]:
    return model_of(state)["config"]["content"]


def tokenizer_of(state: dict[str, Any]) -> dict[str, Any]:
    return state["integrations"]["huggingface"]["tokenizer"]


def expected(name: str) -> dict[str, torch.Tensor]:
    """The original model's ids, last logits and greedy ids."""
    return load_file(FIXTURES / f"{RUN if name in (SHARDED, NEWEST) else name}.expected.safetensors")


def expected_ids(name: str) -> dict[str, list[int]]:
    """The original tokenizer's ids by text."""
    return json.loads((FIXTURES / f"{RUN if name in (SHARDED, NEWEST) else name}.ids.json").read_bytes())


def load(folder: Path, **options: Any) -> Any:
    """The model in `folder` by plain transformers."""
    is_masked = "ForMaskedLM" in (folder / "config.json").read_text(encoding="utf-8")
    auto = transformers.AutoModelForMaskedLM if is_masked else transformers.AutoModelForCausalLM
    return auto.from_pretrained(folder, **options).eval()


def log_probabilities(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """[batch, length, vocabulary]"""
    with torch.inference_mode():
        return model(input_ids=ids).logits.float().log_softmax(-1)


def assert_same(folder: Path, name: str) -> None:
    """Assert that the model in `folder` computes what the original of the run `name` did."""
    want, model = expected(name), load(folder)
    have = log_probabilities(model, want["ids"])[:, -want["logits"].shape[1] :]
    torch.testing.assert_close(have, want["logits"].log_softmax(-1), atol=1e-4, rtol=0)
    greedy = want["ids"]
    while greedy.shape[1] < want["greedy"].shape[1]:
        last = log_probabilities(model, greedy)[:, -1]
        greedy = torch.cat([greedy, last.argmax(-1, keepdim=True)], 1)
    assert torch.equal(greedy, want["greedy"])
