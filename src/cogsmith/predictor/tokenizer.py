"""What TOKENIZER answers: the served model's tokenizer, so that a client encodes exactly as the server does."""

from __future__ import annotations

import base64
import functools
import gzip
from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from cogsmith.errors import RequestError

_SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
_SAMPLE = "A client's naïve 日本語 text,\n\twith  12345 spaces "


@functools.lru_cache(maxsize=4)
def tokenizer_files(tokenizer: Any | None) -> tuple[str, Mapping[str, str | None]]:
    """Return `tokenizer.json`, in gzip and base64, and the special tokens and chat template as text or None.

    Reading the first gives a `tokenizers.Tokenizer` whose `encode(text).ids` are this tokenizer's `encode(text)`, its
    BOS and EOS included. Raises RequestError where the model has no tokenizer, or none that can be sent so.
    """
    if tokenizer is None:
        raise RequestError("this model came without a tokenizer", fix="use the one that its weights were trained with")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        raise RequestError("this model's tokenizer has no tokenizer.json", fix="load it from where its weights are")
    sent = Tokenizer.from_str(backend.to_str())
    # transformers sets these anew at each call; in the file they would cut the client's texts.
    sent.no_truncation()
    sent.no_padding()
    sample = _SAMPLE + "".join(tokenizer.all_special_tokens)
    if sent.encode(sample).ids != list(tokenizer.encode(sample)):
        raise RequestError(
            "this model's tokenizer does more than its tokenizer.json says", fix="load it from where its weights are"
        )
    data = gzip.compress(sent.to_str().encode(), mtime=0)
    return base64.b64encode(data).decode("ascii"), _special(tokenizer)


def _special(tokenizer: Any) -> Mapping[str, str | None]:
    template = tokenizer.chat_template
    if isinstance(template, Mapping):
        template = template.get("default")
    return {**{name: getattr(tokenizer, name) for name in _SPECIAL_TOKENS}, "chat_template": template}
