"""Hidden states against those of curated-transformers, which data/make_curated.py has written down."""

import json
from pathlib import Path

import numpy
import pytest
import torch
import transformers
from safetensors.torch import save_file

from cogsmith.engine.request import EmbedRequest, Padding

from .encoders import ask, engine_over

CLOSE = 1e-5
ORIGINAL = numpy.load(Path(__file__).parent / "data/curated.npz")
ABOUT = json.loads(str(ORIGINAL["about"]))
TEXTS = tuple(map(tuple, ABOUT["texts"]))
NUM_LAYERS = ABOUT["shape"]["num_hidden_layers"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curated")
    config = transformers.BertConfig(**ABOUT["shape"], architectures=["BertModel"])
    config.save_pretrained(folder)
    weights = {name.removeprefix("weights/"): value for name, value in ORIGINAL.items() if name.startswith("weights/")}
    tensors = {name: torch.tensor(value) for name, value in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    engine = engine_over(folder)
    yield engine
    engine.close()


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_output_of_a_padded_batch_is_the_original_s(engine, side):
    padding = Padding(side, ABOUT["padding_id"])
    last, every = ask(
        engine,
        EmbedRequest(TEXTS, pooling="none", padding=padding),
        EmbedRequest(TEXTS, layers="all", embedding=True, pooling="none", padding=padding),
    )
    assert every.inputs == tuple(map(tuple, ORIGINAL[f"{side}/ids"].tolist()))
    assert len(every.outputs) == NUM_LAYERS + 1
    assert numpy.abs(numpy.stack(last.outputs["last"]) - ORIGINAL[f"{side}/{NUM_LAYERS}"]).max() < CLOSE
    for place, name in enumerate(("embedding", *range(NUM_LAYERS))):
        assert numpy.abs(numpy.stack(every.outputs[name]) - ORIGINAL[f"{side}/{place}"]).max() < CLOSE


def test_left_padding_shifts_what_right_padding_does_not(engine):
    (alone,) = ask(engine, EmbedRequest(TEXTS, pooling="none"))
    for text, found, left, right in zip(
        TEXTS, alone.outputs["last"], ORIGINAL[f"left/{NUM_LAYERS}"], ORIGINAL[f"right/{NUM_LAYERS}"], strict=True
    ):
        assert numpy.abs(found - right[: len(text)]).max() < CLOSE
        if len(text) < left.shape[0]:
            assert numpy.abs(found - left[-len(text) :]).max() > 100 * CLOSE
