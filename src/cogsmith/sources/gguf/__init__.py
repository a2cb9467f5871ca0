"""GGUF files as weights: each is converted once to a Hugging Face checkpoint folder, and the result proven.

source           the Source: which file, converted once, kept in the cache
header           what a file says about itself, read without the `gguf` package
convert          one file into one folder
├── tokenizer    its vocabulary as a Hugging Face tokenizer
│   └── pretokenizers   the cutting rules that the file only names
├── rope         the scaling of positions, which transformers' loader does not read
└── verify       the proof: same token ids, same logits, right EOS
"""

GGUF_SUFFIX = ".gguf"

USE_ORIGINAL = "use the model's original weights instead of the GGUF file"
"""The fix where a file is sound and still cannot be converted exactly."""
