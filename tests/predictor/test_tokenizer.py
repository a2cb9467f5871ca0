"""A tokenizer on its way to a client: what is read there encodes as the server does."""

import base64
import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cogsmith.detokenize import fingerprint
from cogsmith.errors import RequestError
from cogsmith.predictor.tokenizer import tokenizer_files

from ..engine.models import byte_tokenizer


def with_bos():
    """A tokenizer that puts a BOS before every text, and whose stored settings would cut and fill up texts."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({piece: i for i, piece in enumerate([*alphabet, "<s>", "th"])}, [("t", "h")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = decoders.ByteLevel()
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 256)])
    made.add_special_tokens(["<s>"])
    made.enable_truncation(5)
    made.enable_padding(length=9, pad_id=0)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="<s>")


def received(tokenizer):
    """The tokenizer that a client makes of the answer."""
    return Tokenizer.from_str(gzip.decompress(base64.b64decode(tokenizer_files(tokenizer)[0])).decode())


TOKENIZERS = [byte_tokenizer(eos_token="<end>"), with_bos()]


@given(st.text(max_size=30) | st.sampled_from(["", "a<s>b", "<end>", " the  thing"]), st.sampled_from(TOKENIZERS))
def test_a_client_encodes_as_the_server_does(text, tokenizer):
    assert received(tokenizer).encode(text).ids == tokenizer.encode(text)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_the_vocabulary_has_the_fingerprint_of_the_servers(tokenizer):
    assert fingerprint(received(tokenizer).get_vocab()) == fingerprint(tokenizer.get_vocab())


def test_special_tokens_and_the_template_are_told():
    tokenizer = with_bos()
    tokenizer.chat_template = "{{ messages }}"
    assert tokenizer_files(tokenizer)[1] == {
        "bos_token": "<s>",
        "eos_token": "<s>",
        "pad_token": "[PAD]",
        "unk_token": None,
        "chat_template": "{{ messages }}",
    }


def test_of_several_templates_the_default_is_told():
    tokenizer = with_bos()
    tokenizer.chat_template = {"default": "a", "tool_use": "b"}
    assert tokenizer_files(tokenizer)[1]["chat_template"] == "a"


def test_the_answer_is_the_same_each_time():
    assert tokenizer_files(with_bos())[0] == tokenizer_files(with_bos())[0]


class Meddling(PreTrainedTokenizerFast):
    """Does something to texts that its file does not know of."""

    def encode(self, text, **kwargs):
        return super().encode(text.lower(), **kwargs)


class Slow:
    """Has no tokenizer.json."""


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        (None, "without a tokenizer"),
        (Slow(), "has no tokenizer.json"),
        (Meddling(tokenizer_object=byte_tokenizer().backend_tokenizer), "does more than its tokenizer.json says"),
    ],
)
def test_what_would_encode_otherwise_is_not_sent(tokenizer, words):
    with pytest.raises(RequestError, match=words):
        tokenizer_files(tokenizer)


def test_a_fingerprint_tells_vocabularies_apart_and_not_their_order():
    assert fingerprint({"a": 0, "b": 1}) == fingerprint({"b": 1, "a": 0})
    assert len({fingerprint(v) for v in ({"a": 0, "b": 1}, {"a": 1, "b": 0}, {"a": 0}, {"a": 0, "B": 1})}) == 4
    # sha256 of the JSON text [["a", 0], ["\\u00e9", 1]], computed with sha256sum.
    assert fingerprint({"é": 1, "a": 0}) == "sha256:1a50ff47ac23ec7c01477d75cbf2c46a72dfc69694a3d0bd43bc611178d11790"
