"""Which models transformers has, told before anything is fetched and without transformers.

`architectures.json` holds the names that config.json has for them, `model_type`, by task: of the version that
containers install. `python -m cogsmith.workdir.architectures` writes it anew.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from cogsmith.config.model import Model
from cogsmith.errors import SourceError
from cogsmith.heads import require_language_model
from cogsmith.manifest import CAUSAL_LM, IMAGE_TEXT, VECTORS
from cogsmith.sources.base import Resolved

TORCHVISION = "torchvision"
"""Under this name stand those whose processors cannot do without it, and the parts of others of which that is true."""

_FILE = Path(__file__).with_suffix(".json")
_TRANSFORMERS = "transformers"
_KINDS = {CAUSAL_LM: "continue text", IMAGE_TEXT: "read images"} | dict.fromkeys(VECTORS, "give vectors of texts")


def require_known(model: Model, resolved: Resolved) -> None:
    """Raise SourceError, with all that there are, for a model of a kind that nothing in its container can load.

    UserError for one that continues no text, such as a classifier, where that is its task.
    A model with code of its own is not for this, and one that chooses its own transformers is passed over, as is
    vLLM, which has models of its own.
    """
    kind = (resolved.shape or {}).get("model_type")
    if resolved.format != "hf" or not isinstance(kind, str) or model.engine == "vllm" or _brings_its_own(model):
        return
    supported = known(model.task)
    if kind in supported:
        if model.task == CAUSAL_LM:
            require_language_model(resolved.shape or {}, model.source)
        return
    raise SourceError(
        f"config.json has model_type {kind!r}, and transformers {known(_TRANSFORMERS)[0]} has no such model to "
        f"{_KINDS[model.task]}",
        fix=f"{_advice(kind, supported)}; supported are: {', '.join(supported)}",
    )


def known(task: str) -> Sequence[str]:
    """Return the model types of a task, sorted. Under "transformers" stands the version that has them."""
    return _known()[task]


@cache
def _known() -> Mapping[str, Sequence[str]]:
    found: dict[str, list[str]] = json.loads(_FILE.read_bytes())
    return found


def _brings_its_own(model: Model) -> bool:
    return any(Requirement(line).name == _TRANSFORMERS for line in model.requirements)


def _advice(kind: str, supported: Sequence[str]) -> str:
    tasks = [task for task in _KINDS if kind in known(task)]
    if tasks:
        return f"write task = {' or '.join(map(repr, tasks))}"
    near = difflib.get_close_matches(kind, supported, n=1)
    return (f"did you mean {near[0]!r}? else " if near else "") + "give its code: code.path, code.model_type, …"


def to_json() -> str:
    """Return what the file is to hold, from the transformers that is installed. Its own Auto classes are asked."""
    import transformers
    from transformers.models.auto import modeling_auto as auto

    # Those that transformers has some use for with texts: AutoModel itself knows those of sounds and images too.
    uses = ("MASKED_LM", "CAUSAL_LM", "TEXT_ENCODING", "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION")
    texts = {kind for use in (*uses, "QUESTION_ANSWERING") for kind in getattr(auto, f"MODEL_FOR_{use}_MAPPING_NAMES")}
    headless = [kind for kind in _taken_by(auto.AutoModel) if kind in texts]
    found = {
        _TRANSFORMERS: [transformers.__version__],
        CAUSAL_LM: _taken_by(auto.AutoModelForCausalLM),
        IMAGE_TEXT: _taken_by(auto.AutoModelForImageTextToText),
    }
    found |= dict.fromkeys(VECTORS, headless) | {TORCHVISION: _with_torchvision(found[IMAGE_TEXT])}
    lists = found.items()
    return "{\n" + ",\n".join(f'"{task}": {json.dumps(kinds)}' for task, kinds in lists) + "\n}\n"


def _taken_by(auto_class: Any) -> list[str]:
    """Return the model types whose configuration one of transformers' Auto classes takes."""
    from transformers import CONFIG_MAPPING

    return sorted(kind for kind in CONFIG_MAPPING if CONFIG_MAPPING[kind] in auto_class._model_mapping)


def _with_torchvision(kinds: Sequence[str]) -> list[str]:
    """Return the model types, among `kinds` and those with a processor of their own, that go by torchvision alone."""
    import transformers
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    def needs(kind: str) -> bool:
        processor = getattr(transformers, PROCESSOR_MAPPING_NAMES.get(kind) or "", None)
        # A class says it under one name where torchvision is installed, and its stand-in under the other.
        packages: Any = getattr(processor, "_backends", None) or getattr(processor, "__backends", ())
        ways = IMAGE_PROCESSOR_MAPPING_NAMES.get(kind)
        return TORCHVISION in packages or (ways is not None and "pil" not in ways)

    return sorted(kind for kind in {*kinds, *PROCESSOR_MAPPING_NAMES} if needs(kind))


if __name__ == "__main__":
    sys.stdout.write(to_json())
