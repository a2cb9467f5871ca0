"""Tiny configs of the architectures that transformers can generate with, for `test_architectures`.

Windows, chunks and scan blocks are shorter than the texts. Where a name is missing, it is a twin of another (cwm, flint
and iquestcoder are llama in other words), needs more than text, or has no small form.
"""

import transformers

from .models import SHAPE, VOCAB

COMMON = {**SHAPE, "pad_token_id": 0}
GPT2_SHAPE = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128}
WINDOW = {"head_dim": 8, "sliding_window": 8}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LOCAL_MOE = {"num_local_experts": 4, "num_experts_per_tok": 2}
ROUTED_MOE = {
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
# With few heads the indexer scores many keys exactly 0, and a tie falls one way or the other.
INDEXED = {"index_topk": 16, "index_n_heads": 32, "index_head_dim": 8}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
MAMBA2 = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
MIXED_LAYERS = {"layer_types": ["linear_attention", "full_attention", "linear_attention"]}

FAST = {
    "Bloom": {"n_layer": 3, "n_head": 4},
    "Cohere2": {"sliding_window": 8},
    "DeepseekV3": {**LATENT, **ROUTED_MOE},
    "Falcon": {"alibi": False, "new_decoder_architecture": False, "multi_query": True},
    "FalconH1": {"mamba_d_ssm": 32, **MAMBA2, "mamba_n_heads": 4},
    "Gemma2": WINDOW,
    "Gemma3Text": WINDOW,
    "GPT2": GPT2_SHAPE,
    "GPTBigCode": GPT2_SHAPE,
    "GPTJ": {**GPT2_SHAPE, "rotary_dim": 4},
    "GPTNeo": {
        "num_layers": 3,
        "num_heads": 4,
        "attention_types": [[["global", "local", "local"], 1]],
        "window_size": 8,
    },
    "GPTNeoX": {},
    "GptOss": {**WINDOW, **LOCAL_MOE},
    "Granite": {},
    "Lfm2": {"layer_types": ["conv", "full_attention", "conv"]},
    "Llama4Text": {
        "head_dim": 8,
        "intermediate_size_mlp": 64,
        "num_local_experts": 4,
        "attention_chunk_size": 16,
        "no_rope_layer_interval": 2,
        "attn_temperature_tuning": False,
    },
    "Mamba": {"state_size": 8},
    "Mistral": {"sliding_window": 8},
    "Mixtral": {"num_local_experts": 4, "sliding_window": None},
    "Mpt": {"d_model": 32, "n_heads": 4, "n_layers": 3, "max_seq_len": 128},
    "Olmo2": {},
    "OPT": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "Phi3": {},
    "Phimoe": {**LOCAL_MOE, "sliding_window": 8},
    "Qwen2": {},
    "Qwen2Moe": {**MOE, "shared_expert_intermediate_size": 16, "use_sliding_window": True, "sliding_window": 8},
    "Qwen3Moe": {"head_dim": 8, **MOE},
    "Qwen3Next": {"head_dim": 16, "shared_expert_intermediate_size": 16, **DELTA, **MIXED_LAYERS, **MOE},
    "Rwkv": {"attention_hidden_size": 32, "context_length": 128},
    "SmolLM3": {},
    "StableLm": {},
}

SLOW = {
    "Afmoe": {**WINDOW, **MOE},
    "Apertus": {},
    "Arcee": {},
    "Bamba": {**MAMBA2, "attn_layer_indices": [1]},
    "BioGpt": {},
    "BitNet": {},
    "CodeGen": {**GPT2_SHAPE, "rotary_dim": 4},
    "Cohere": {},
    "CTRL": {**GPT2_SHAPE, "dff": 64},
    "Dbrx": {
        "d_model": 32,
        "n_heads": 4,
        "n_layers": 3,
        "max_seq_len": 128,
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
        "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "DeepseekV2": {**LATENT, **ROUTED_MOE},
    "DeepseekV32": {**LATENT, **ROUTED_MOE, **INDEXED},
    "DiffLlama": {},
    "Doge": {},
    "Dots1": ROUTED_MOE,
    "Ernie4_5": {},
    "Ernie4_5_Moe": {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 16},
    "Exaone4": {"sliding_window": 8},
    "FalconMamba": {"state_size": 8},
    "Gemma": {"head_dim": 8},
    "Gemma3nText": {
        **WINDOW,
        "vocab_size_per_layer_input": VOCAB,
        "hidden_size_per_layer_input": 8,
        "laurel_rank": 8,
        "num_kv_shared_layers": 0,
    },
    "Glm": {"head_dim": 8},
    "Glm4": {"head_dim": 8},
    "Glm4Moe": {"head_dim": 8, **ROUTED_MOE},
    "GraniteMoe": LOCAL_MOE,
    "GraniteMoeHybrid": {
        **MAMBA2,
        **LOCAL_MOE,
        "shared_intermediate_size": 16,
        "layer_types": ["mamba", "attention", "mamba"],
    },
    "Helium": {"head_dim": 8},
    "HunYuanDenseV1": {"head_dim": 8},
    "HunYuanMoEV1": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "Jais2": {},
    "Jamba": {
        "mamba_d_state": 8,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    },
    "JetMoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "kv_channels": 8},
    "Lfm2Moe": {"layer_types": ["conv", "full_attention", "conv"], "num_dense_layers": 1, **MOE},
    "Llama": {},
    "Mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "chunk_size": 8},
    "MiniMax": {"head_dim": 8, "layer_types": MIXED_LAYERS["layer_types"], "block_size": 8, **LOCAL_MOE},
    "MiniMaxM2": {"head_dim": 8, **LOCAL_MOE},
    "Ministral": WINDOW,
    "Nemotron": {},
    # transformers keeps steps above this in a scan and not in single steps, which are off by 4e-4 then.
    "NemotronH": {
        "layers_block_type": ["mamba", "attention", "mamba"],
        "head_dim": 8,
        "ssm_state_size": 8,
        "mamba_num_heads": 8,
        "mamba_head_dim": 8,
        "n_groups": 1,
        "chunk_size": 8,
        "time_step_min": 1e-12,
    },
    "Olmo": {},
    "Olmo3": {"sliding_window": 8},
    "OlmoHybrid": {**DELTA, **MIXED_LAYERS},
    "Olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
    "Persimmon": {},
    "Phi": {},
    "Qwen3": {"head_dim": 8},
    "Qwen3_5Text": {"head_dim": 8, **DELTA, **MIXED_LAYERS},
    "RecurrentGemma": {"lru_width": 32, "attention_window_size": 8},
    "SeedOss": {"head_dim": 8},
    "Starcoder2": {"sliding_window": 8},
    "VaultGemma": WINDOW,
    "XGLM": {"d_model": 32, "num_layers": 3, "attention_heads": 4, "ffn_dim": 64},
    "Zamba2": {
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "num_mem_blocks": 1,
        "mamba_d_state": 8,
        "n_mamba_heads": 8,
        "mamba_headdim": 8,
        "mamba_ngroups": 1,
        "chunk_size": 8,
        "time_step_min": 1e-12,
    },
}

GENTLE = {"Mamba": 3.0, "Mamba2": 3.0, "FalconMamba": 3.0, "Rwkv": 3.0}
"""Recurrences that magnify float32's own rounding beyond a tenth where weights are scaled up as much as the others'."""


def tiny_config(family):
    """The config of a family, named as transformers names its class."""
    changes = {**FAST, **SLOW}[family]
    return getattr(transformers, f"{family}Config")(**{**COMMON, **changes})
