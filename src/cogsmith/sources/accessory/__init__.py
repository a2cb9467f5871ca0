"""LLaMA2-Accessory's checkpoints and Meta's own LLaMA releases, as Hugging Face folders; and their deltas.

    importer     the way from listings to a checkpoint folder, top to bottom
    ├── folder       which files make which family, by names alone
    ├── shards       the files of one family -> whole tensors, not yet read
    │   ├── merge        along which dimension a name is cut
    │   └── stack        several paths: a base, then differences and overrides
    ├── params       the JSON files -> arguments; what all types share of config.json
    ├── types        llama_type -> the module that knows its names
    │   ├── llama  internlm  falcon  mixtral  mixtral_sparse
    │   └── inventory    tensors taken by name and shape; what is missing, unfit or left over; LoRA by `peft`
    └── tokenizer    SentencePiece or tokenizer.json, with BOS before every prompt
    delta        apply and extract, over the same parts; `write` writes Accessory's format

Known as working: https://github.com/Alpha-VLLM/LLaMA2-Accessory, whose own outputs are the tests' truth.
"""

from cogsmith.sources.accessory.importer import AccessoryImporter

__all__ = ["AccessoryImporter"]
