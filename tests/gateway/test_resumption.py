"""What a cut answer still lacks, in operations written by hand."""

import asyncio
import json

import pytest

from cogsmith.gateway.resumption import rest_of

from .stand_in import gateway, said, saying


def tokens(stream_id, *ids, reason=None):
    """Lines of tokens, the last with a finish reason."""
    reasons = [None] * (len(ids) - 1) + [reason]
    items = [
        {"token": id_, "stream_id": stream_id, "logprob": -1.0, "finish_reason": reason}
        for id_, reason in zip(ids, reasons, strict=True)
    ]
    return "".join(f"TOKEN {json.dumps(item)}\n" for item in items)


def rest(batch, *output):
    text = rest_of(json.dumps(batch), output)
    return text and [[verb, {k: v for k, v in fields.items() if v != 0.0}] for verb, fields in json.loads(text)]


GENERATE = [
    "GENERATE",
    {"stream_id": 1, "prompt": [1, 2], "max_tokens": 9, "temperature": 0.7, "logit_bias": {"3": -100}},
]
SCORE = ["SCORE", {"stream_id": 2, "prompt": [1], "scored": [4, 5, 6]}]


def test_streams_go_on_after_what_has_come():
    (generate, score) = rest([GENERATE, SCORE], tokens(1, 7) + tokens(2, 4, 5), tokens(1, 8))
    assert generate == [
        "GENERATE",
        {**GENERATE[1], "prompt": [1, 2, 7, 8], "max_tokens": 7, "top_logprobs": 1},
    ]
    assert score == ["SCORE", {"stream_id": 2, "prompt": [1, 4, 5], "scored": [6]}]


def test_what_has_ended_is_not_asked_for_again():
    assert rest([GENERATE, SCORE], tokens(1, 7, 8, reason="stop")) == [SCORE]
    assert rest([GENERATE, SCORE], 'TOKEN {"stream_id": 1, "error": "no"}\n') == [SCORE]
    assert rest([GENERATE, SCORE], tokens(1, 7, reason="length") + tokens(2, 4, 5, 6, reason="stop")) == ""
    assert rest([["MODEL_INFO", {"stream_id": 1}]], 'MSG {"stream_id": 1, "model_info": {}}\n') == ""


@pytest.mark.parametrize(
    "operation",
    [
        ["GENERATE", {"stream_id": 1, "prompt": [1], "presence_penalty": 1.0}],
        ["GENERATE", {"stream_id": 1, "prompt": [1], "frequency_penalty": 1.0}],
        ["GENERATE", {"stream_id": 1, "prompt": [1], "lmtp": "1.1"}],
    ],
)
def test_what_cannot_go_on_as_it_was_is_not_asked_for(operation):
    assert rest([operation, SCORE], tokens(1, 7)) is None


def test_a_penalty_on_what_has_not_begun_forbids_nothing():
    operation = [
        "GENERATE",
        {"stream_id": 1, "prompt": [1], "presence_penalty": 1.0, "max_tokens": 2, "top_logprobs": 1},
    ]
    assert rest([operation, SCORE], tokens(2, 4, 5, 6, reason="stop")) == [operation]


def test_what_is_no_batch_has_no_rest():
    assert rest_of("", ["some text"]) is None
    assert rest_of("[]", ["some text"]) is None


def test_what_goes_on_is_of_the_same_images():
    image = "data:image/png;base64,AA=="
    seen = []

    async def rest_of_it(inputs, cancelled):
        seen.append(inputs)
        yield said("completed", status="succeeded", metrics={})

    async def body():
        async with gateway() as local:
            local.cog.plans = [saying(said("output", chunk=tokens(1, 7), index=0)), rest_of_it]
            inputs = {"ops_batch_json": json.dumps([GENERATE]), "image": image}
            await local.predictions.create(local.worker, inputs, model_ref="me/tiny").wait()

    asyncio.run(body())
    assert seen[0]["image"] == image
    assert json.loads(seen[0]["ops_batch_json"])[0][1]["prompt"] == [1, 2, 7]
