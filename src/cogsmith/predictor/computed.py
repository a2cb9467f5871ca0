"""What a model computed of a text, as files beside the text: logits as an npz file, keys and values as safetensors.

Files are data URIs, as in all answers in JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy

from cogsmith import data_uris
from cogsmith.engine.base import Engine, EngineInfo
from cogsmith.engine.cache_file import to_bytes
from cogsmith.engine.request import MOST_VALUES, ComputedEvent, ForwardRequest, GenerateRequest
from cogsmith.errors import RequestError
from cogsmith.predictor.arrays import npz_uri
from cogsmith.predictor.mailbox import Mailbox

LogitsWanted = Literal["", "last", "all"]
"""None; those from which the answer's tokens were drawn; those after the prompt's other tokens too."""


def num_cached(request: GenerateRequest) -> int:
    """Return how many of a prompt's first tokens need not be computed, because their keys and values came with it."""
    if request.cache is None:
        return 0
    return min(request.cache.num_known(request.prompt), len(request.prompt) - 1)


def check_files(request: GenerateRequest, logits: LogitsWanted, info: EngineInfo, *, keeps_cache: bool) -> None:
    """Check before a text is generated that what is asked for can be given. Raises RequestError."""
    if request.cache is not None and not num_cached(request):
        raise RequestError(
            "the cache is of a text that begins otherwise than the prompt", fix="send a prompt that goes on from it"
        )
    if request.cache is not None and not request.use_cache:
        raise RequestError("a cache is given, and use_cache is false", fix="leave out one of them")
    if logits and info.engine == "vllm":
        raise RequestError("vLLM gives out no logits", fix='package the model with engine = "transformers"')
    if keeps_cache and not info.details.get("caches"):
        raise RequestError("this model gives out no cache", fix="leave out return_cache")
    if logits == "all" and request.media is not None:
        raise RequestError("no logits are given inside a prompt with images", fix='send return_logits = "last"')
    num_tokens = request.max_tokens + (len(request.prompt) - 1 if logits == "all" else 0)
    if logits and num_tokens * info.head_size > MOST_VALUES:
        raise RequestError(
            f"the logits after up to {num_tokens} tokens, {info.head_size} numbers each, are more than {MOST_VALUES} "
            "numbers",
            fix="ask for a smaller max_new_tokens, or send a shorter prompt",
        )


def files_of(
    request: GenerateRequest,
    answer: Sequence[int],
    logits: LogitsWanted,
    engine: Engine,
    mailbox: Mailbox,
    *,
    model: str,
    keeps_cache: bool,
) -> Mapping[str, Any]:
    """Return the files that belong to a prompt and its `answer`: `npz` with its `shapes`, and `cache`.

    The last token of the answer is not computed: nothing was drawn after it. Raises RequestError.
    """
    num_logits = len(answer) + (len(request.prompt) - 1 if logits == "all" else 0) if logits else 1
    asked = ForwardRequest(
        request.prompt, tuple(answer[:-1]), num_logits, keeps_cache, media=request.media, cache=request.cache
    )
    event = _run(asked, engine, mailbox)
    files: dict[str, Any] = {}
    if logits:
        arrays = {"logits": event.logits, "prompt_ids": _ids(request.prompt), "token_ids": _ids(answer)}
        shapes = {name: list(array.shape) for name, array in arrays.items()}
        files |= {"npz": npz_uri(arrays), "shapes": shapes}
    if event.cache is not None:
        # The text goes on with the last token, whose keys are still to be computed.
        cache = replace(event.cache, tokens=(*request.prompt, *answer))
        files["cache"] = data_uris.encode(to_bytes(cache, model))
    return files


def _run(request: ForwardRequest, engine: Engine, mailbox: Mailbox) -> ComputedEvent:
    stream = mailbox.next_streams(1)
    handle = engine.submit(request, mailbox.sink(stream), client=mailbox)
    try:
        return mailbox.take_only(stream, ComputedEvent)
    finally:
        handle.cancel()


def _ids(tokens: Sequence[int]) -> Any:
    return numpy.asarray(tokens, numpy.int64)
