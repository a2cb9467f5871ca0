"""LMTP 1.1 under the real Cog runtime, where predictions run on threads of their own in one process."""

import base64
import gzip
from concurrent.futures import ThreadPoolExecutor

import pytest
from tokenizers import Tokenizer

from cogsmith import lmtp
from cogsmith.client.cog_server import Prediction
from cogsmith.detokenize import fingerprint

from ..engine.models import plain_logprobs

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cog-server")]


def replies(url, *operations):
    text = "".join(Prediction(url, {"ops_batch_json": lmtp.serialize_batch(operations)}).chunks())
    return [reply for line in text.splitlines() for reply in lmtp.parse_line(line)]


def ends(answers):
    return {(end.stream_id, end.index): end for end in answers if isinstance(end, lmtp.End)}


def test_branches_masks_and_options_give_the_plain_models_tokens(served):
    model, url = served
    prompt = tuple(range(1, 80))
    even = range(0, 256, 2)
    answers = replies(
        url,
        lmtp.ExtendedGenerate(prompt=prompt, stream_id=1, max_tokens=6, n=2, allow=lmtp.pack_mask(even)),
        lmtp.ExtendedScore(prompt=prompt, options=((3, 4), (5,)), stream_id=2),
    )
    for index in range(2):
        tokens = [
            r.token for r in answers if isinstance(r, lmtp.ExtendedToken) and (r.stream_id, r.index) == (1, index)
        ]
        plain = plain_logprobs(model, [*prompt, *tokens])[len(prompt) - 1 : -1]
        assert tokens == [2 * best for best in plain[:, ::2].argmax(-1).tolist()]
    scored = [(r.token, r.logprob) for r in answers if isinstance(r, lmtp.ExtendedToken) and r.stream_id == 2]
    expected = [
        (token, plain_logprobs(model, [*prompt, *option])[len(prompt) - 1 + i, token].item())
        for option in ((3, 4), (5,))
        for i, token in enumerate(option)
    ]
    assert sorted(token for token, _ in scored) == [3, 4, 5]
    assert dict(scored) == pytest.approx(dict(expected), abs=1e-4)
    assert {key: end.finish_reason for key, end in ends(answers).items()} == {
        (1, 0): "length",
        (1, 1): "length",
        (2, 0): "stop",
        (2, 1): "stop",
    }


def test_a_cancel_in_one_prediction_ends_branches_of_others(served):
    _, url = served
    long = lmtp.ExtendedGenerate(prompt=(1, 2), stream_id=1, max_tokens=8000, n=2, cancel_key="e2e", deadline_ms=60_000)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(replies, url, long) for _ in range(2)]
        cancelled = 0
        while cancelled < 4:
            (answer,) = replies(url, lmtp.Cancel(cancel_key="e2e", stream_id=1))
            cancelled += answer.cancelled
            assert not all(prediction.done() for prediction in running) or cancelled == 4
        for prediction in running:
            assert {end.finish_reason for end in ends(prediction.result(60)).values()} == {"cancelled"}


def test_a_deadline_ends_one_operation_of_a_batch(served):
    _, url = served
    answers = replies(
        url,
        lmtp.ExtendedGenerate(prompt=(1, 2), stream_id=1, max_tokens=8000, deadline_ms=200),
        lmtp.ExtendedGenerate(prompt=(1, 2), stream_id=2, max_tokens=4),
    )
    reasons = {stream_id: end.finish_reason for (stream_id, _), end in ends(answers).items()}
    assert reasons == {1: "deadline", 2: "length"}


def test_the_tokenizer_that_is_sent_is_the_one_whose_fingerprint_is_told(served):
    _, url = served
    info, files = replies(url, lmtp.ModelInfo(stream_id=1), lmtp.GetTokenizer(stream_id=2))
    tokenizer = Tokenizer.from_str(gzip.decompress(base64.b64decode(files.tokenizer)).decode())
    assert fingerprint(tokenizer.get_vocab()) == info.model_info["tokenizer"]
    text = "naïve 日本 text"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text
