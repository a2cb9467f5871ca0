"""The config.json of a model that transformers has, from what Composer saved of the run's.

Composer saves what `config.save_pretrained` wrote, which often says neither the class nor the type of the weights;
older runs saved the config object's dict as it was, with tuples, and settings of the training run among it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cogsmith.config.model import Precision
from cogsmith.errors import ConversionError
from cogsmith.sources.composer.checkpoint import Checkpoint
from cogsmith.sources.composer.weights import DTYPES
from cogsmith.sources.torchfile import Inert

_OF_THE_RUN = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_attn_implementation_internal",
        "_commit_hash",
        "_experts_implementation",
        "_experts_implementation_internal",
        "_name_or_path",
        "attn_implementation",
        "auto_map",
        "dtype",
        "experts_implementation",
        "init_device",
        "torch_dtype",
    }
)
"""What is no property of the model, or is said anew. `auto_map` names code, which does not come along, and an
implementation may be one on the Hub, which transformers would fetch and run."""

_AROUND = frozenset({"DistributedDataParallel", "FullyShardedDataParallel", "OptimizedModule"})
"""Classes of torch that a run may put around the model, and whose names Composer then saves as the model's."""

_SHARDED = "FSDP"
"""What torch's fully_shard puts before the name of a model's class."""

_CAUSAL = "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES"
_MASKED = "MODEL_FOR_MASKED_LM_MAPPING_NAMES"
_SEQ2SEQ = "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES"
_BY_TASK = {
    "CAUSAL_LM": _CAUSAL,
    "FEATURE_EXTRACTION": "MODEL_MAPPING_NAMES",
    "QUESTION_ANS": "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES",
    "SEQ_2_SEQ_LM": _SEQ2SEQ,
    "SEQ_CLS": "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
    "TOKEN_CLS": "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES",
}
"""peft's names of tasks, and transformers' tables of the classes for them."""

_OWN_CODE = "give the model's code: code.path, code.model_type, code.config, code.model"


def clean_config(checkpoint: Checkpoint, precision: Precision) -> dict[str, Any]:
    """Return config.json's content but for the class: the type of its weights, and nothing of the run.

    Raises ConversionError for what JSON cannot hold.
    """
    stated = {key: _plain(value, key) for key, value in checkpoint.config.items() if key not in _OF_THE_RUN}
    return {**stated, "dtype": DTYPES[precision]}


def is_wrapped(checkpoint: Checkpoint) -> bool:
    """Tell whether the class that was saved is one around the model, so that the model's own is not said."""
    return checkpoint.peft_config is not None or checkpoint.class_name.rpartition(".")[2] in _AROUND


def model_class_name(checkpoint: Checkpoint) -> str:
    """Return the name of the model's class or, where another is around it, of its config's. Raises ConversionError."""
    name = checkpoint.class_name.rpartition(".")[2]
    if not is_wrapped(checkpoint):
        own = name.removeprefix(_SHARDED)
        return own if transformers_class(own) else name
    stated = checkpoint.config.get("architectures")
    found = stated[0] if stated else _class_by_type(checkpoint)
    if not isinstance(found, str):
        raise ConversionError(
            f"the checkpoint says {name} in place of the class of its model, a {checkpoint.config.get('model_type')}",
            fix="save the model in the training program with save_pretrained",
        )
    return found


def _class_by_type(checkpoint: Checkpoint) -> str | None:
    """Return the class of a model's type: for the adapter's task, else for predicting what is masked or next."""
    from transformers.models.auto import modeling_auto

    tables = [_CAUSAL, _SEQ2SEQ] if checkpoint.config.get("is_decoder") else [_MASKED, _CAUSAL, _SEQ2SEQ]
    if checkpoint.peft_config is not None:
        tables = [_BY_TASK.get(str(checkpoint.peft_config.get("task_type")), _CAUSAL)]
    known = (getattr(modeling_auto, table).get(checkpoint.config.get("model_type")) for table in tables)
    return next((name for name in known if name), None)


def check_known(checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
    """Check that transformers has the class and that it is for this config. Raises ConversionError naming it."""
    name, model_type = config["architectures"][0], config.get("model_type")
    known = transformers_class(name)
    if known is None or known.config_class.model_type != model_type:
        raise ConversionError(
            f"the model is a {checkpoint.class_name} (model_type {model_type!r}), which transformers does not have",
            fix=_OWN_CODE,
        )


def ties_of(config: Mapping[str, Any]) -> Mapping[str, str]:
    """Return which weights the model shares, a copy's name to the original's; none where it shares none.

    Raises ConversionError where transformers cannot read the config.
    """
    known = transformers_class(config["architectures"][0])
    shared = getattr(known, "_tied_weights_keys", None)
    if known is None or not isinstance(shared, Mapping):
        return {}
    try:
        stated = known.config_class.from_dict(dict(config))
    except Exception as error:  # each class of transformers checks in its own way
        raise ConversionError(
            f"transformers cannot read the config of this {config.get('model_type')}: {error}",
            fix="check that the run's config is one of its model_type",
        ) from error
    return shared if getattr(stated.get_text_config(), "tie_word_embeddings", True) else {}


def transformers_class(name: str) -> Any | None:
    """Return transformers' model class called `name`; None where it has none."""
    import transformers

    found = getattr(transformers, name, None)
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel) else None


def _plain(value: Any, where: str) -> Any:
    """Return `value` as JSON can hold it, settings of the run in nested configs left out."""
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{where}.{key}") for key, part in value.items() if key not in _OF_THE_RUN}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(part, where) for part in value]
    if isinstance(value, str) and not value.isprintable():
        _check_is_text(value, where)
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    kind = f"{value.module}.{value.name}" if isinstance(value, Inert) else type(value).__name__
    raise ConversionError(
        f"the model's config has a {kind} at {where!r}, which config.json cannot hold",
        fix="save the checkpoint again with a config of plain values",
    )


def _check_is_text(value: str, where: str) -> None:
    """Raise ConversionError for half of a surrogate pair, which no file in UTF-8 can hold."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ConversionError(
            f"the model's config has text at {where!r} that is no Unicode: {value[:40]!r}",
            fix="save the checkpoint again with a config of plain values",
        ) from error
