"""The original models and tokenizers of the recorded runs, tiny. Imported by make_fixtures.py in its environments."""

from __future__ import annotations

import tempfile
from pathlib import Path

SIZE = {"vocab_size": 272}

CORPUS = ["The quick brown fox can't jump over the lazy dogs", "the the quick new line and a tab", "two two spaces"]


def bpe():
    """A byte-level BPE, as GPT-2's."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2TokenizerFast

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(CORPUS, vocab_size=268, special_tokens=["<|endoftext|>"], min_frequency=1)
    return through_files(GPT2TokenizerFast, lambda folder: trained.save_model(folder))


def wordpiece():
    """BERT's, in Python: it saves vocab.txt and no tokenizer.json."""
    from transformers import BertTokenizer

    letters = [*"abcdefghijklmnopqrstuvwxyz.,'0123456789"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    tokens += ["the", "quick", "brown", "fox", "##mp", "lazy"]
    return through_files(
        BertTokenizer, lambda folder: Path(folder, "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    )


def sentencepiece(fast):
    """Llama's, with bytes for what it does not know."""
    import sentencepiece as spm
    from transformers import LlamaTokenizer, LlamaTokenizerFast

    def train(folder):
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 4), model_prefix=f"{folder}/tokenizer", vocab_size=300, model_type="bpe",
            byte_fallback=True, hard_vocab_limit=False, normalization_rule_name="identity", add_dummy_prefix=True,
            remove_extra_whitespaces=False, character_coverage=1.0, minloglevel=2,
        )  # fmt: skip

    return through_files(LlamaTokenizerFast if fast else LlamaTokenizer, train)


def through_files(kind, write):
    with tempfile.TemporaryDirectory() as folder:
        write(folder)
        return kind.from_pretrained(folder)


def gpt2(**more):
    from transformers import GPT2Config, GPT2LMHeadModel

    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_embd=8, n_head=2, n_layer=1, n_positions=32, **SIZE, **ids, **more))


def llama(**more):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 8, "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(
        LlamaConfig(**sizes, num_key_value_heads=2, max_position_embeddings=32, **(SIZE | more))
    )  # fmt: skip


def bert():
    from transformers import BertConfig, BertForMaskedLM

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(**sizes, max_position_embeddings=32, **SIZE))


def mosaic_gpt(**more):
    from examples.llm.src.models.mosaic_gpt import MosaicGPT, MosaicGPTConfig

    sizes = {"d_model": 8, "n_heads": 2, "n_layers": 2, "mlp_ratio": 4, "max_seq_len": 32}
    return MosaicGPT(MosaicGPTConfig(**sizes, **SIZE, attn_impl="torch", low_precision_layernorm=False, **more))


def mpt(**attention):
    from llmfoundry.models.mpt import MPTConfig, MPTForCausalLM

    sizes = {"d_model": 8, "n_heads": 4, "n_layers": 2, "expansion_ratio": 4, "max_seq_len": 32}
    attention = {"attn_impl": "torch", **attention}
    no_bias = attention.get("alibi", False)
    return MPTForCausalLM(MPTConfig(**sizes, **SIZE, attn_config=attention, norm_type="layernorm", no_bias=no_bias))


def lora(model, **more):
    """The model under LoRA, with an adapter that already does something."""
    import torch
    from peft import LoraConfig, get_peft_model

    wrapped = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=8, **more))
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return wrapped


def stir(model):
    """Fresh models have zero biases and unit norms, which hide mistakes."""
    import torch

    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
