"""What lies where in a Composer checkpoint, in each of the forms that Composer saves.

    a file, packed or not       {"state": {"model": …, "integrations": {"huggingface": …}, …}, "rng": …}
    a folder of shards          the same, saved by torch.distributed.checkpoint
    composer_metadata.json      "huggingface" as above, as JSON, and beside it in model/ the tensors alone:
                                model.pt, or shards

Source: composer/core/state.py, composer/models/huggingface.py and composer/checkpoint/save.py of mosaicml 0.32.1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cogsmith.errors import SourceError
from cogsmith.sources import torchfile
from cogsmith.sources.base import Reporter, Task
from cogsmith.sources.composer.files import LINK, METADATA, shard_folder
from cogsmith.sources.importer import Part
from cogsmith.sources.torchfile.containers import opened
from cogsmith.sources.torchfile.distributed import load_sharded

_TAKEN = (("state", "model"), ("state", "integrations"))
_Saved = tuple[Any, Any]
"""A run's tensors, and what it says of its Hugging Face model; nothing of them has been looked at."""
_SAVE_AGAIN = "save it again with Composer's Trainer"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What is taken of a checkpoint: tensors by the names of the training run, and what `get_metadata` saved.

    `class_name` is the Python class of the model with its module; `peft_config` is None without adapters. `tokenizer`
    maps a file's name to its "file_extension" and "content"; it is empty where the run had none.
    """

    name: str
    tensors: Mapping[str, Any]
    config: Mapping[str, Any]
    class_name: str
    peft_config: Mapping[str, Any] | None
    tokenizer: Mapping[str, Any]


@contextmanager
def opened_checkpoint(
    part: Part, scratch: Path, reporter: Reporter, stated: Mapping[str, Any] | None = None
) -> Iterator[Checkpoint]:
    """Give the checkpoint in `part`; its tensors are views of files, and good until the end of the block.

    What is packed is unpacked into the folder `scratch`, and removed again. `stated` is the content of a config.json
    for a checkpoint that does not say which model it is. Raises SourceError for what is no whole
    checkpoint of a Hugging Face model.
    """
    _check_link(part)
    with ExitStack() as until_the_end:
        in_shards = shard_folder(part.places) is not None
        with reporter.task("Reading the checkpoint", unit="steps" if in_shards else "bytes") as task:
            if metadata := next((place for path, place in part.places.items() if _name(path) == METADATA), None):
                saved = _from_newest(part, metadata, scratch, task)
            elif in_shards:
                saved = _from_state(part.uri, _sharded(part, scratch, task, is_state=True))
            else:
                (place,) = (place for path, place in part.places.items() if not path.endswith(LINK))
                plain = until_the_end.enter_context(opened(place, scratch, task))
                saved = _from_state(part.uri, torchfile.load(plain))
            checkpoint = _checkpoint(part.uri, *saved, stated)
        yield checkpoint


def _from_state(uri: str, loaded: Any) -> _Saved:
    state = _mapping(loaded).get("state")
    if not isinstance(state, Mapping):
        keys = ", ".join(map(str, list(_mapping(loaded))[:8])) or "none"
        raise SourceError(
            f'{uri} is no Composer checkpoint: it has no "state" (its keys: {keys})',
            fix="name the file that Composer's Trainer saved",
        )
    integrations = state.get("integrations")
    return state.get("model"), _mapping(integrations).get("huggingface")


def _from_newest(part: Part, metadata: Path, scratch: Path, task: Task) -> _Saved:
    try:
        said = json.loads(metadata.read_bytes())
    except ValueError as error:
        raise SourceError(f"{METADATA} of {part.uri} is not JSON: {error}", fix=_SAVE_AGAIN) from None
    if shard_folder(part.places) is not None:
        tensors = _sharded(part, scratch, task, is_state=False)
    else:
        tensors = torchfile.load(next(place for path, place in part.places.items() if _name(path) == "model.pt"))
    return tensors, _mapping(said).get("huggingface")


def _sharded(part: Part, scratch: Path, task: Task, *, is_state: bool) -> Any:
    """Return what the shards of `part` hold, of a run's state only what is taken."""
    folder = shard_folder(part.places)
    inside = {path: place for path, place in part.places.items() if path.rpartition("/")[0] == folder}
    return load_sharded(inside, wanted=_is_taken if is_state else None, scratch=scratch, task=task)


def _is_taken(keys: tuple[str | int, ...]) -> bool:
    return keys[:2] in _TAKEN


def _checkpoint(uri: str, tensors: Any, huggingface: Any, stated: Mapping[str, Any] | None) -> Checkpoint:
    """Put the parts together. Raises SourceError with everything that is missing."""
    model = _mapping(_mapping(huggingface).get("model"))
    config = _mapping(model.get("config")) or _as_saved(stated)
    faults = []
    if not _mapping(tensors):
        faults.append("it has no model's weights (saved with save_ignore_keys, perhaps)")
    if not isinstance(config.get("content"), Mapping) or not isinstance(config.get("class"), str):
        faults.append(
            "it does not say which Hugging Face model it is: the run's model was no HuggingFaceModel, or it was saved "
            "with save_weights_only by an old Composer"
        )
    if faults:
        raise SourceError(
            f"{uri} cannot become a Hugging Face model: {'; '.join(faults)}",
            fix="name a folder with the model's config.json and tokenizer before it: source = [FOLDER, CHECKPOINT]; or "
            "wrap the model in composer.models.HuggingFaceModel, load the checkpoint, and save it again",
        )
    peft = model.get("peft_config")
    return Checkpoint(
        name=uri,
        tensors=tensors,
        config=config["content"],
        class_name=config["class"],
        peft_config=None if peft is None else _mapping(_mapping(peft).get("content")),
        tokenizer=_mapping(_mapping(huggingface).get("tokenizer")),
    )


def _as_saved(stated: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return a config.json as Composer would have saved it; nothing where there is none, or it names no class."""
    names = _mapping(stated).get("architectures")
    return {"content": stated, "class": str(names[0])} if isinstance(names, list) and names else {}


def _check_link(part: Part) -> None:
    """Raise SourceError where the text that stands for a link names another file than the one that was chosen."""
    link = next((place for path, place in part.places.items() if path.endswith(LINK)), None)
    if link is None:
        return
    target = link.read_text(encoding="utf-8", errors="replace").strip().rstrip("/")
    chosen = [path for path in part.places if not path.endswith(LINK)]
    if not any(_name(target) in path.split("/") for path in chosen):
        raise SourceError(
            f"the latest checkpoint of {part.uri} is {target}, and the one with the highest number is {chosen[0]}",
            fix=f'name the one that is meant: "{part.uri}/{_name(target)}"',
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _name(path: str) -> str:
    return path.rpartition("/")[2]
