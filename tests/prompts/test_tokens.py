"""What a tokenizer makes of a prompt and of stop texts, against the tokenizers library itself."""

from __future__ import annotations

from collections import namedtuple

import pytest
from tokenizers import AddedToken, Tokenizer, models

from cogsmith.prompts import templates
from cogsmith.prompts.tokens import split_stops, wants_special

Said = namedtuple("Said", ["template", "text", "stop"], defaults=[None, None, None])


def test_a_stop_is_an_id_where_the_decoder_gives_it_no_text():
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.add_tokens(["<tool>", AddedToken("<own>", normalized=False)])
    tokenizer.add_special_tokens(["</s>", "<|im_end|>"])
    stop = ("\n\n", "<|im_end|>", "<tool>", "</s>", "<own>", "<|im_end|>")
    silent = [text for text in dict.fromkeys(stop) if tokenizer.decode(tokenizer.encode(text).ids) == ""]
    found = split_stops(stop, tokenizer.get_added_tokens_decoder())
    assert found.ids == tuple(tokenizer.token_to_id(text) for text in silent)
    assert found.texts == ("\n\n", "<tool>", "<own>")


@pytest.mark.parametrize(
    ("text", "special", "own", "wanted"),
    [
        ("### Instruction:", {"bos_token": "<s>"}, False, True),
        ("<s>[INST] a", {"bos_token": "<s>"}, False, False),
        ("[INST] a", {"bos_token": "<s>"}, True, False),
        ("[INST] a", {}, False, True),
        ("[INST] a", {"bos_token": ""}, False, True),
    ],
)
def test_special_tokens_are_added_once(text, special, own, wanted):
    assert wants_special(text, special, own=own) is wanted


def test_what_is_packaged_is_a_template_with_its_own_ends():
    assert templates.packaged(Said()) is None
    assert templates.packaged(Said(stop=("x",))) is None
    assert templates.packaged(Said("alpaca")) == templates.find("alpaca")
    assert templates.packaged(Said("alpaca", stop=())).stop == ()
    own = templates.packaged(Said(text='{% set stop = ["END"] %}{{ messages[0].content }}'))
    assert (own.render([{"role": "user", "content": "a"}]), own.stop) == ("a", ("END",))
