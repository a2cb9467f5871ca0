"""Tokens as the page gets them."""

import math

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from cogsmith.client.results import Token
from cogsmith.client.tokenizer import ClientTokenizer
from cogsmith.gateway.demo.shown import Labels, Shown

from ..engine.models import byte_tokenizer
from .demo_page import ids


def spaced_tokenizer():
    """Words that carry their space, as SentencePiece has them: a text's first space is dropped."""
    vocabulary = {"<s>": 0, "▁a": 1, "▁the": 2, "s": 3}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<s>"))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return ClientTokenizer(tokenizer)


def test_a_label_is_a_tokens_text_behind_other_text():
    labels = Labels(spaced_tokenizer())
    assert [labels[id_] for id_ in (1, 2, 3, 0, 77)] == [" a", " the", "s", "<s>", "[77]"]


def test_an_end_token_has_a_name_and_no_text():
    tokenizer = ClientTokenizer(byte_tokenizer().backend_tokenizer)
    (newline,) = ids("\n")
    shown = Shown(tokenizer, Labels(tokenizer), eos_ids={newline})
    (ended,) = shown.push(Token(newline, math.log(0.5), finish_reason="stop"))
    assert (ended["text"], ended["label"]) == ("", "\n")
