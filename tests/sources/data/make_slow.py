"""Write what the slow tokenizers of transformers 4 read: `slow.json`. They are written in Python, and gone from 5.

In an environment of its own, from this folder:

    pip install transformers==4.57.6 sentencepiece protobuf
    python make_slow.py
"""

import json
from pathlib import Path

from transformers import BertTokenizer, GPT2Tokenizer, LlamaTokenizer

HERE = Path(__file__).parent
TEXTS = [
    *(HERE / "many_scripts.txt").read_text(encoding="utf-8").splitlines()[::3],
    "",
    " ",
    "  two  spaces,\ttabs\t\tand\n\nnew\r\nlines\rand \n ",
    " " * 40,
    "I'M HERE, you'll see; 1234567890 snake_case https://example.com/a?b=c&d=%20#e",
    "é e\u0301 \u1112\u1161\u11ab \ufb01nd \u00bd 👩\u200d👩\u200d👧 🇫🇷 1\ufe0f\u20e3 \u200b \u00a0",
    "\u2581\u2581a\u2581 \u2581b",
    "a</s>b <s> x </s></s>hello <unk> you",
    "a<|endoftext|>b [CLS] x [SEP][MASK]",
]


def main() -> None:
    """Write the texts, and the ids of each tokenizer for them."""
    tokenizers = {
        "gpt2": GPT2Tokenizer.from_pretrained(HERE / "gpt2"),
        "bert": BertTokenizer.from_pretrained(HERE / "bert"),
        "llama": LlamaTokenizer(str(HERE / "llama_slow.model"), legacy=True, add_bos_token=True),
    }
    ids = {name: [tokenizer(text)["input_ids"] for text in TEXTS] for name, tokenizer in tokenizers.items()}
    (HERE / "slow.json").write_text(json.dumps({"texts": TEXTS, **ids}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
