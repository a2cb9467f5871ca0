"""A checkpoint folder → a model in memory, with the facts the engine needs to know about it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from cogsmith.detokenize import fingerprint
from cogsmith.engine import autocast, constants, quantization
from cogsmith.engine.base import EngineInfo
from cogsmith.engine.model_tokenizer import decodable_ids, load_tokenizer, with_padding
from cogsmith.engine.prepack import prepack_where_wanted
from cogsmith.engine.processor import load_processor
from cogsmith.errors import UserError
from cogsmith.heads import require_language_model
from cogsmith.manifest import CAUSAL_LM, IMAGE_TEXT, VECTORS
from cogsmith.quant import Quant

if TYPE_CHECKING:
    from cogsmith.engine.images import Images

_log = logging.getLogger("cogsmith.engine")

# Configs name their longest text in many ways; the first that is there counts.
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
# For models without a stated limit (ALiBi, state-space): a bound on memory, not on what they can do.
_UNSTATED_CONTEXT = 32768


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model and its tokenizer, ready to run. `tokenizer` is None where the folder holds none.

    `images` makes prompts of images, for a model that is to read some.
    """

    name: str
    model: Any
    tokenizer: Any | None
    images: Images | None = None

    @property
    def head_size(self) -> int:
        """Width of the logits."""
        return int(self.model.get_output_embeddings().weight.shape[0])

    @property
    def vocab_size(self) -> int:
        """How many ids, from 0, the tokenizer can decode; the head may be padded beyond."""
        return decodable_ids(self.tokenizer, self.head_size)

    @property
    def eos_ids(self) -> frozenset[int]:
        """All ids that end a text: generation config, model config and tokenizer each may know some."""
        return eos_ids(
            getattr(self.model, "generation_config", None), self.model.config.get_text_config(), self.tokenizer
        )

    def new_cache(self) -> Any:
        """An empty cache of the kind that this architecture needs."""
        return empty_cache(self.model.config)

    def info(self, *, runner: str, max_context: int | None) -> EngineInfo:
        """Describe the model; `max_context` is a limit from outside, None for none."""
        config = self.model.config.get_text_config()
        parameter = next(self.model.parameters())
        return EngineInfo(
            model=self.name,
            engine="transformers",
            head_size=self.head_size,
            vocab_size=self.vocab_size,
            max_context=longest_context(self.model.config, max_context),
            eos_ids=self.eos_ids,
            bos_id=getattr(self.tokenizer, "bos_token_id", None),
            parameters=self.model.num_parameters(),
            footprint_bytes=quantization.footprint_bytes(self.model),
            layers=getattr(config, "num_hidden_layers", 0),
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=str(parameter.device),
            details={
                "architecture": type(self.model).__name__,
                "runner": runner,
                "tokenizer": None if self.tokenizer is None else fingerprint(self.tokenizer.get_vocab()),
                "quantization": _quantization_name(self.model),
                "memory_footprint": int(self.model.get_memory_footprint()),
                **self._image_facts(),
            },
        )

    def _image_facts(self) -> dict[str, Any]:
        if self.images is None:
            return {}
        return {"task": IMAGE_TEXT, "image_token": self.images.token, "image_token_id": self.images.token_id}


def load(
    folder: Path,
    model_args: Mapping[str, Any],
    *,
    name: str,
    quant: Quant | None = None,
    prepack: bool | None = None,
    own_class: bool = False,
    task: str = CAUSAL_LM,
) -> LoadedModel:
    """Load the checkpoint in `folder` with `from_pretrained(**model_args)`, quantised as `quant` says.

    On a machine with a GPU the model goes there, spread over all of them (`device_map="auto"`); on a CPU the dtype
    is one that the CPU computes well. Either is overridden by `model_args`. `prepack` says whether a CPU's weights are
    laid out for oneDNN; None means where that changes no result. `autocast_dtype` among the arguments is ours: see
    `autocast`. `own_class` says that the model's
    class is not transformers': that the weights are all there is checked then, and UserError raised where they are not.
    With the `task` "image-text" the model's processor is loaded too. Nothing is fetched from anywhere.
    """
    from transformers.utils import logging

    limit_threads()
    if not sys.stderr.isatty():
        # A log would hold a line for every redrawing.
        logging.disable_progress_bar()
    model_args, computed = autocast.taken(model_args)
    config = read_config(folder, model_args)
    if task == CAUSAL_LM and not own_class:
        require_language_model({"architectures": config.architectures}, name)
    dtype = asked_dtype(model_args) or best_dtype(config)
    defaults = {"device_map": "auto"} if torch.cuda.is_available() else {}
    rest, quant = quantization.asked(model_args, quant)
    # bitsandbytes wants a dtype by name, where from_pretrained itself understands "auto".
    computes = best_dtype(config) if dtype == "auto" else str(dtype).removeprefix("torch.")
    quantized = quantization.arguments(config, quant, computes)
    arguments = {**defaults, **rest, **quantized, "dtype": dtype, "local_files_only": True}
    arguments.pop("torch_dtype", None)
    model, report = class_for(task, config).from_pretrained(folder, **arguments, output_loading_info=True)
    model.eval()
    if not hasattr(model, "generation_config"):
        # Only transformers' own way of generating reads it for the model, and a class may do without that.
        model.generation_config = generation_config(folder)
    if own_class:
        _require_whole(model, report)
        constants.restore(model)
    quantization.prepare(model, quant, computes)
    autocast.cast(model, computed)
    # What is laid out for one type cannot be cast to another.
    prepack_where_wanted(model, prepack if computed is None else False)
    trust = trusts_code(model_args)
    if task != IMAGE_TEXT:
        return LoadedModel(name, model, with_padding(load_tokenizer(folder, trust=trust)))
    images = _images(folder, config, trust=trust)
    return LoadedModel(name, model, with_padding(images.processor.tokenizer), images)


def _images(folder: Path, config: Any, *, trust: bool) -> Images:
    processor = load_processor(folder, trust=trust)
    # Imported here: it needs pillow, which only models that read images have beside them.
    from cogsmith.engine.images import images_of

    return images_of(processor, config)


def class_for(task: str, config: Any) -> Any:
    """Return transformers' Auto class for a model of `config` with this task.

    Raises UserError where it is to read images and transformers knows no such model.
    """
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForTextEncoding

    if task in VECTORS:
        # Of T5 and its like, the half that reads.
        is_half = (
            getattr(config, "is_encoder_decoder", False) and type(config) in AutoModelForTextEncoding._model_mapping
        )
        return AutoModelForTextEncoding if is_half else AutoModel
    if task != IMAGE_TEXT:
        return AutoModelForCausalLM
    if type(config) not in AutoModelForImageTextToText._model_mapping and not hasattr(config, "auto_map"):
        raise UserError(
            f"task is {IMAGE_TEXT!r}, and {config.model_type} is no model that reads images",
            fix="name a vision-language model of transformers, or leave out task",
        )
    return AutoModelForImageTextToText


def read_config(folder: Path, model_args: Mapping[str, Any]) -> Any:
    """Return the transformers config of the checkpoint in `folder`, as `model_args` would have it loaded."""
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder, trust_remote_code=trusts_code(model_args), local_files_only=True)


def empty_cache(config: Any) -> Any:
    """Return an empty cache of the kind that a model of `config` needs; the ordinary one where that says nothing."""
    from transformers import DynamicCache

    return DynamicCache(config=config if states_layers(config) else None)


def states_layers(config: Any) -> bool:
    """Whether a config says how many layers there are by transformers' own name, as all of its own models' do."""
    return getattr(config.get_text_config(), "num_hidden_layers", None) is not None


def generation_config(folder: Path) -> Any | None:
    """Return what the checkpoint in `folder` says of how it generates; None where it says nothing."""
    from transformers import GenerationConfig

    has_one = (folder / "generation_config.json").exists()
    return GenerationConfig.from_pretrained(folder, local_files_only=True) if has_one else None


def eos_ids(*holders: Any) -> frozenset[int]:
    """Return all end tokens that the holders name, such as a generation config: an id each, or a list."""
    ids: set[int] = set()
    for holder in holders:
        value = getattr(holder, "eos_token_id", None)
        ids.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(ids)


def longest_context(config: Any, limit: int | None) -> int:
    """Return the longest text of a model of this transformers config, in tokens: its own, or `limit` if that is less.

    Where the config does not say, `limit` alone counts.
    """
    text = config.get_text_config()
    # XLNet says -1.
    stated = next((value for key in _CONTEXT_KEYS if (value := getattr(text, key, None) or 0) > 0), None)
    return min(stated or limit or _UNSTATED_CONTEXT, limit or sys.maxsize)


def trusts_code(model_args: Mapping[str, Any]) -> bool:
    """Whether the checkpoint's own Python files may run."""
    return bool(model_args.get("trust_remote_code", False))


def asked_dtype(model_args: Mapping[str, Any]) -> Any | None:
    """Return the dtype that `model_args` asks for, under today's name or the older one; None where it asks for none."""
    return model_args.get("dtype") or model_args.get("torch_dtype") or None


def limit_threads(environ: Mapping[str, str] = os.environ) -> None:
    """Give torch as many threads as the container may use, unless OMP_NUM_THREADS says how many.

    torch counts the host's cores. More threads than the quota grants spin on each other's time.
    """
    if "OMP_NUM_THREADS" not in environ:
        torch.set_num_threads(max(1, min(torch.get_num_threads(), _cpu_quota())))


def _require_whole(model: Any, report: Mapping[str, Any]) -> None:
    """Refuse a model some of whose weights transformers has made up; what it had no use for is told in the log."""
    if missing := sorted(report["missing_keys"]):
        raise UserError(
            f"the weights lack {len(missing)} tensors of {type(model).__name__}, such as {missing[0]}",
            fix="name the weights that belong to the class, or correct the names of the class's modules",
        )
    if unused := sorted(report["unexpected_keys"]):
        _log.warning(
            "%s has no use for %d tensors of the weights, such as %s", type(model).__name__, len(unused), unused[0]
        )


def best_dtype(config: Any) -> str:
    """Return the checkpoint's dtype; on a CPU never fp16, whose prefill is slow, and bf16 only where it is native."""
    stated = str(getattr(config.get_text_config(), "dtype", None) or "float32").removeprefix("torch.")
    if torch.cuda.is_available() or stated not in ("float16", "bfloat16"):
        return stated
    return "bfloat16" if _cpu_computes_bf16() else "float32"


def _cpu_computes_bf16() -> bool:
    # mkldnn's own answer covers avx512_bf16, amx and the ARM equivalents.
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _cpu_quota() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return cores if quota == "max" else min(cores, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        return cores


def _quantization_name(model: Any) -> str | None:
    config = getattr(model.config, "quantization_config", None)
    method = getattr(config, "quant_method", None)
    return None if method is None else str(getattr(method, "value", method))
