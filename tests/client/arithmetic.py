"""A model that needs no weights, and a server's side of LMTP over it, written by hand from the protocol's page.

The next token follows from all ids before it, so a call that goes on from a wrong place gives other tokens.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from hashlib import sha256

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB = 97
FEATURES = ["allow", "cancel", "deadline_ms", "define", "logprob_ids", "min_tokens", "n", "options", "seed", "stop"]

LETTERS = Tokenizer(models.WordLevel({chr(0x4E00 + id_): id_ for id_ in range(VOCAB)}, unk_token=chr(0x4E00)))
"""A character for each id."""
LETTERS.pre_tokenizer = pre_tokenizers.Split("", "isolated")
LETTERS.decoder = decoders.Fuse()

FINGERPRINT = "sha256:" + sha256(json.dumps([[chr(0x4E00 + id_), id_] for id_ in range(VOCAB)]).encode()).hexdigest()
TOKENIZER = {
    "tokenizer": base64.b64encode(gzip.compress(LETTERS.to_str().encode())).decode(),
    "special": {"chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}", "bos_token": None},
}


def digest(tokenizer):
    """As docs/protocol.md says."""
    text = json.dumps([tokenizer["tokenizer"], tokenizer["special"]], sort_keys=True)
    return "sha256:" + sha256(text.encode()).hexdigest()


def letters(ids):
    return "".join(chr(0x4E00 + id_) for id_ in ids)


def next_token(ids):
    return (7 * sum(ids) + 3 * len(ids) + 5) % VOCAB


def logprob(ids, token):
    """Distinct for most places, so that a mixed-up token shows."""
    return -((sum(ids) * 31 + token) % 1000) / 100 - 0.01


def continuation(prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(next_token(ids))
    return tuple(ids[len(prompt) :])


def resolved(batch):
    """The operations of a batch, with what was defined put where it is named."""
    defined = {}
    for verb, payload in batch:
        if verb == "DEFINE":
            defined[payload["name"]] = payload.get("prompt", payload.get("allow"))
            continue
        if isinstance(payload.get("prompt"), dict):
            payload = {**payload, "prompt": [*defined[payload["prompt"]["name"]], *payload["prompt"].get("then", [])]}
        if isinstance(payload.get("allow"), dict) and "name" in payload["allow"]:
            payload = {**payload, "allow": defined[payload["allow"]["name"]]}
        yield verb, payload


def answer(batch, info, tokenizer=TOKENIZER) -> list[str]:
    """All lines for a batch, streams interleaved token by token."""
    streams = [_stream(verb, payload, info, tokenizer) for verb, payload in resolved(batch)]
    lines = []
    while streams:
        streams = [stream for stream in streams if (line := next(stream, None)) and not lines.append(line)]
    return lines


def _stream(verb, payload, info, tokenizer) -> Iterator[str]:
    extended = payload.get("lmtp") == "1.1"
    stream_id = payload["stream_id"]
    if verb == "MODEL_INFO":
        yield _line("MSG", stream_id=stream_id, model_info=info)
    elif verb == "TOKENIZER":
        yield _line("MSG", stream_id=stream_id, **tokenizer)
    elif verb == "CANCEL":
        yield _line("MSG", stream_id=stream_id, cancelled=1)
    elif 98 in payload["prompt"]:
        text = "this server takes no 98"
        yield (
            _line("END", stream_id=stream_id, finish_reason="error", error=text)
            if extended
            else _line("TOKEN", stream_id=stream_id, error=text)
        )
    elif verb == "GENERATE":
        branches = [continuation(payload["prompt"], payload.get("max_tokens", 32))] * payload.get("n", 1)
        yield from _tokens(payload, branches, "length", extended, {"top_logprobs": {"0": -9.5}})
    else:
        options = payload["options"] if extended else [payload["scored"]]
        yield from _tokens(payload, options, "stop", extended, {})


def _tokens(payload, branches, reason, extended, more):
    longest = max(map(len, branches))
    for step in range(longest):
        for index, branch in enumerate(branches):
            if step >= len(branch):
                continue
            ids = [*payload["prompt"], *branch[:step]]
            finish = reason if step == len(branch) - 1 else None
            fields = {"index": index} if extended else {}
            yield _line(
                "TOKEN",
                token=branch[step],
                stream_id=payload["stream_id"],
                logprob=logprob(ids, branch[step]),
                finish_reason=finish,
                **more,
                **fields,
            )
            if extended and finish:
                timing = {"first_token_ms": 1.5, "total_ms": 2.5}
                yield _line("END", stream_id=payload["stream_id"], index=index, finish_reason=finish, timing=timing)


def _line(verb, **payload):
    return f"{verb} {json.dumps(payload)}\n"
