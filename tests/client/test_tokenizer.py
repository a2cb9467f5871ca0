"""Whose tokenizer counts: the server's, fetched once, or the caller's, if ids mean the same."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json

import pytest
from tokenizers import Tokenizer, models

from cogsmith.client import connect
from cogsmith.client.tokenizer import open_tokenizer
from cogsmith.errors import EndpointError, TokenizerMismatch

from .arithmetic import LETTERS, continuation, letters


def call(work, **settings):
    async def main():
        async with connect("replicate:o/m", **settings) as client:
            return await asyncio.wait_for(work(client), 30)

    return asyncio.run(main())


def asked(service, verb):
    return sum(one == verb for batch in service.batches for one, _ in batch)


async def of_text(client):
    return (await client.generate(letters([1, 2]), max_tokens=4).result()).ids


def test_the_servers_tokenizer_is_fetched_once_and_kept(service):
    for _ in range(3):
        assert call(of_text) == continuation([1, 2], 4)
    assert asked(service, "TOKENIZER") == 1


@pytest.mark.parametrize("damage", ["", "{}", "half", "no gzip", "another vocabulary"])
def test_what_is_kept_is_not_trusted_blindly(service, tmp_path, damage):
    call(of_text)
    (kept,) = (tmp_path / "cache" / "tokenizers").iterdir()
    content = json.loads(kept.read_text())
    other = base64.b64encode(gzip.compress(other_tokenizer(x=13).to_str().encode())).decode()
    damaged = {
        "half": kept.read_text()[:50],
        "no gzip": json.dumps({**content, "tokenizer": "AAAA"}),
        "another vocabulary": json.dumps({**content, "tokenizer": other}),
    }
    kept.write_text(damaged.get(damage, damage))
    assert call(of_text) == continuation([1, 2], 4)
    assert json.loads(kept.read_text())["tokenizer"] == content["tokenizer"]


def test_a_chat_template_that_has_changed_is_fetched_again(service):
    messages = [{"content": letters([5])}]

    def chat():
        return call(lambda client: client.chat(messages, max_tokens=3).result())

    assert chat() == letters(continuation([5], 3))
    template = "{% for message in messages %}{{ message.content }}{{ message.content }}{% endfor %}"
    service.tokenizer = {**service.tokenizer, "special": {"chat_template": template, "bos_token": None}}
    assert chat() == letters(continuation([5, 5], 3))


def test_ids_need_no_tokenizer(service):
    call(lambda client: client.generate([1], max_tokens=2).result())
    assert asked(service, "TOKENIZER") == 0


def test_a_given_tokenizer_is_used(service, tmp_path):
    LETTERS.save(str(tmp_path / "tokenizer.json"))
    for given in (LETTERS, tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
        assert call(of_text, tokenizer=given) == continuation([1, 2], 4)
    assert asked(service, "TOKENIZER") == 0


def other_tokenizer(**changes):
    vocabulary = {chr(0x4E00 + id_): id_ for id_ in range(97)}
    for token, id_ in changes.items():
        vocabulary = {key: value for key, value in vocabulary.items() if value != id_} | {token: id_}
    return Tokenizer(models.WordLevel(vocabulary, unk_token=chr(0x4E00)))


@pytest.mark.parametrize(
    ("other", "sizes", "difference"),
    [
        ({"x": 13, "y": 40}, "has 97 tokens, the server's 97", "id 13 is 'x' here and '\u4e0d' there"),
        ({"x": 97}, "has 98 tokens, the server's 97", "id 97 is 'x' here and None there"),
    ],
)
@pytest.mark.parametrize("prompt", [[1], "\u4e01"])
def test_another_vocabulary_is_refused_before_the_first_token(service, other, sizes, difference, prompt):
    with pytest.raises(TokenizerMismatch) as caught:
        call(lambda client: client.generate(prompt).result(), tokenizer=other_tokenizer(**other))
    assert sizes in caught.value.message
    assert difference in caught.value.message
    assert service.work == []


def test_a_tokenizer_that_is_none(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    for place in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(EndpointError, match=place.name):
            open_tokenizer(place)


def test_options_are_told_by_text(service):
    async def work(client):
        return await client.distribution(letters([1]), [letters([2, 3]), letters([4])], normalise="mean")

    shares = call(work)
    assert sum(shares) == pytest.approx(1.0)
    (((_, payload),),) = service.work
    assert (payload["prompt"], payload["options"]) == ([1], [[2, 3], [4]])


def test_text_while_it_comes(service):
    async def work(client):
        stream = client.text(letters([1]), max_tokens=8)
        pieces = [piece async for piece in stream]
        return pieces, stream.tokens.finish_reason

    assert call(work) == (list(letters(continuation([1], 8))), "length")


def test_nothing_of_a_stop_text_is_shown(service):
    """The server here does not know stops, so it is the client that ends the text."""
    tokens = continuation([1], 20)
    stop = letters(tokens[5:8])

    async def work(client):
        return [piece async for piece in client.text(letters([1]), max_tokens=20, stop=stop)]

    assert "".join(call(work)) == letters(tokens[:5])


def test_chat_goes_through_the_template(service):
    messages = [{"role": "user", "content": letters([7])}, {"role": "assistant", "content": letters([8, 9])}]
    assert call(lambda client: client.chat(messages, max_tokens=5).result()) == letters(continuation([7, 8, 9], 5))
