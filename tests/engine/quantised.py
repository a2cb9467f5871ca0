"""What tests of quantised models share: a model, and ways to quantise it."""

from transformers import LlamaConfig

from cogsmith.quant import Quant

from .models import VOCAB, random_model

SHAPE = {"vocab_size": VOCAB, "num_hidden_layers": 2, "num_attention_heads": 4, "eos_token_id": None}
FOUR = Quant(bits=4)
LLM_INT8 = Quant(bits=8, outlier_threshold=6.0)


def llama(hidden_size=64):
    shape = {**SHAPE, "hidden_size": hidden_size, "intermediate_size": 2 * hidden_size, "num_key_value_heads": 2}
    return random_model(LlamaConfig(**shape, max_position_embeddings=128, bos_token_id=1))
