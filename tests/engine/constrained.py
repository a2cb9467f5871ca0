"""Constrained requests, and a tokenizer and models for them on which a text can be spelled in many ways."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cogsmith.engine.request import Constraint, GenerateRequest, Sampling

from .models import tiny_llama

TEXTS = ["the person said hello world and went", '{"name": "Ann", "age": 41, "tags": ["red", "green"]}', "yes no maybe"]
PROMPT = (5, 6, 7)


def trained_tokenizer():
    """Byte-level BPE with tokens of several bytes, so that a text can be spelled in many ways."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=340, special_tokens=["<s>", "</s>", "<end>"], initial_alphabet=sorted(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")


def token_bytes(tokenizer):
    """The bytes of each id; None for special tokens. Made from the alphabet of byte-level BPE (GPT-2's)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    byte_of = {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
    special = set(tokenizer.all_special_tokens) | {"<s>", "<end>"}
    pieces = {}
    for piece, id_ in tokenizer.get_vocab().items():
        pieces[id_] = None if piece in special else bytes(byte_of[character] for character in piece)
    return [pieces[id_] for id_ in range(len(pieces))]


TOKENIZER = trained_tokenizer()
BYTES = token_bytes(TOKENIZER)
EOS = TOKENIZER.eos_token_id


def model_with(**changes):
    return tiny_llama(vocab_size=len(BYTES) + 5, max_position_embeddings=256, **changes)


def request(constraint, seed=None, *, max_tokens=80, **fields):
    sampling = Sampling() if seed is None else Sampling(temperature=1.0, seed=seed)
    return GenerateRequest(PROMPT, max_tokens, sampling, constraint=constraint, **fields)


def choice(*texts):
    return Constraint("choice", choices=texts)


def text_of(events):
    return b"".join(BYTES[event.token] or b"" for event in events).decode()


def finished(events):
    """The text of a stream that has followed its grammar to the end."""
    assert [event.finish_reason for event in events] == [None] * (len(events) - 1) + ["stop"]
    assert events[-1].token == EOS
    return text_of(events)
