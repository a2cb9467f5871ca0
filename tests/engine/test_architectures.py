"""No architecture gives a wrong number: tiny random models of many families against plain forward passes.

Ragged rows with late arrivals, decoded through whichever row back-end the engine chose for the family.
"""

import random

import pytest
import transformers

from cogsmith.engine.request import GenerateRequest, ScoreRequest

from .models import VOCAB, engine_over, plain_logprobs, random_model, run

COMMON = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": None,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
GPT2_SHAPE = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

FAMILIES = {
    "Bloom": {"n_layer": 3, "n_head": 4},
    "Cohere2": {"sliding_window": 8},
    "Falcon": {"alibi": False, "new_decoder_architecture": False, "multi_query": True},
    "FalconH1": {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8},
    "Gemma2": {"head_dim": 8, "sliding_window": 8},
    "GPT2": GPT2_SHAPE,
    "GPTBigCode": GPT2_SHAPE,
    "GPTJ": {**GPT2_SHAPE, "rotary_dim": 4},
    "GPTNeo": {
        "num_layers": 3,
        "num_heads": 4,
        "attention_types": [[["global", "local", "local"], 1]],
        "window_size": 8,
    },
    "GptOss": {"head_dim": 8, "sliding_window": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
    "Granite": {},
    "Mamba": {"state_size": 8},
    "Mistral": {"sliding_window": 8},
    "Mixtral": {"num_local_experts": 4, "sliding_window": None},
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 128},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Phi3": {},
    "Qwen2": {},
    "Qwen3Moe": {"head_dim": 8, **MOE},
    "Qwen3Next": {
        "head_dim": 16,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "shared_expert_intermediate_size": 16,
        **MOE,
    },
    "Rwkv": {"attention_hidden_size": 32, "context_length": 128},
    "StableLm": {},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_family_equals_plain_forwards(family):
    config = getattr(transformers, f"{family}Config")(**{**COMMON, **FAMILIES[family]})
    model = random_model(config)
    engine = engine_over(model, max_batch_size=3)
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
