"""No architecture gives a wrong number: tiny random models of many families against plain forward passes.

Ragged rows with late arrivals, decoded through whichever row back-end the engine chose for the family.
"""

import random

import pytest

from cogsmith.engine.request import GenerateRequest, ScoreRequest
from cogsmith.engine.rows.choose import ALL

from .families import FAST, GENTLE, SLOW, tiny_config
from .models import VOCAB, engine_over, plain_logprobs, random_model, run

# What keeps no cache that transformers could hand from step to step.
NOT_CONTINUED = {"MiniMax", "RecurrentGemma", "Rwkv"}
INDEXED = {"DeepseekV32"}
RECURRENT = {
    "Bamba",
    "FalconH1",
    "FalconMamba",
    "GraniteMoeHybrid",
    "Jamba",
    "Lfm2",
    "Lfm2Moe",
    "Mamba",
    "Mamba2",
    "NemotronH",
    "OlmoHybrid",
    "Qwen3Next",
    "Qwen3_5Text",
    "Zamba2",
}


def check(family, **how):
    """Generate and score ragged texts, three at a time; return the back-end that did it."""
    model = random_model(tiny_config(family), scale=GENTLE.get(family, 8.0))
    engine = engine_over(model, max_batch_size=3, **how)
    draw = random.Random(1)
    prompts = [tuple(draw.randrange(VOCAB) for _ in range(draw.randint(1, 40))) for _ in range(6)]
    generated = [GenerateRequest(prompt, draw.randint(1, 16)) for prompt in prompts]
    scored = [ScoreRequest(prompts[0], prompts[1]), ScoreRequest((), prompts[2])]
    results = run(engine, *generated, *scored)
    engine.close()
    for request, events in zip([*generated, *scored], results, strict=True):
        ids = [*request.prompt, *(event.token for event in events)]
        plain = plain_logprobs(model, ids)
        for position, event in enumerate(events, start=len(request.prompt)):
            expected = plain[position - 1, event.token].item() if position else 0.0
            assert event.logprob == pytest.approx(expected, abs=1e-4)
    return engine.info.details["runner"]


@pytest.mark.parametrize("family", [*FAST, *(pytest.param(family, marks=pytest.mark.slow) for family in SLOW)])
def test_family_equals_plain_forwards(family):
    runner = check(family)
    if family in NOT_CONTINUED:
        assert runner == "recompute"
    elif family in INDEXED:
        assert runner == "solo"
    else:
        assert runner.startswith(("padded",) if family in RECURRENT else ("packed", "padded"))


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted({*FAST, *SLOW} - RECURRENT - NOT_CONTINUED - INDEXED))
def test_family_is_padded_where_it_may_not_be_packed(family):
    assert check(family, back_ends=ALL[1:]) == "padded"


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("Mistral", {"sliding_window": 60}),
        ("Phimoe", {"sliding_window": 60}),
        ("Qwen2Moe", {"sliding_window": 60}),
        ("Llama4Text", {"attention_chunk_size": 60}),
    ],
)
def test_a_window_that_the_start_up_test_does_not_fill(family, changes):
    config = tiny_config(family)
    config.update(changes)
    model = random_model(config)
    engine = engine_over(model)
    text = tuple((7 + 31 * position) % VOCAB for position in range(100))
    (events,) = run(engine, ScoreRequest(text[:1], text[1:]))
    engine.close()
    plain = plain_logprobs(model, text)
    for position, event in enumerate(events):
        assert event.logprob == pytest.approx(plain[position, event.token].item(), abs=1e-4)
