"""`cogsmith.generate`, against plain transformers; and that no model stays in memory."""

from __future__ import annotations

import subprocess
import sys

import pytest

import cogsmith
from cogsmith.errors import RequestRejected

from .e2e.plain import PlainModel
from .engine.models import byte_tokenizer, tiny_llama

TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}{% endfor %}<assistant>"

# 64 MiB of weights each: what stays of one is seen.
THREE_MODELS = """
import sys
import cogsmith, psutil
process, sizes = psutil.Process(), []
for folder in sys.argv[1:]:
    cogsmith.generate(folder, "Hello", max_tokens=2)
    sizes.append(process.memory_full_info().uss)
print(max(sizes) - sizes[0])
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = []
    for layers in (2, 3):
        root = tmp_path_factory.mktemp("model")
        tiny_llama(vocab_size=256, num_hidden_layers=layers).save_pretrained(root)
        byte_tokenizer().save_pretrained(root)
        (root / "chat_template.jinja").write_text(TEMPLATE)
        made.append(root)
    return made


@pytest.mark.slow
def test_one_function_for_any_model_and_anything_to_say(folders):
    for folder in folders:
        plain = PlainModel(folder)
        for messages in ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Why?"}]):
            ids = plain.encode(f"<user>{messages[0]['content']}<assistant>")
            assert cogsmith.generate(folder, messages, max_tokens=7) == plain.decode(plain.greedy(ids, 7))
        ids = plain.encode("Hello")
        assert cogsmith.generate(str(folder), "Hello", max_tokens=7) == plain.decode(plain.greedy(ids, 7))
    ids = plain.encode("Hi")
    said = cogsmith.generate(f"local:{folder}", [{"role": "user", "content": "Hi"}], template="none", max_tokens=7)
    assert said == plain.decode(plain.greedy(ids, 7))


def test_a_template_that_there_is_not():
    with pytest.raises(RequestRejected, match="no prompt template 'x'"):
        cogsmith.generate("local:/", "Hi", template="x")


@pytest.mark.slow
def test_three_models_after_each_other_take_the_memory_of_one(tmp_path):
    places = []
    for seed in range(3):
        model = tiny_llama(vocab_size=256, hidden_size=512, intermediate_size=2048, num_hidden_layers=4)
        size = 4 * model.num_parameters()
        model.save_pretrained(tmp_path / str(seed))
        byte_tokenizer().save_pretrained(tmp_path / str(seed))
        places.append(str(tmp_path / str(seed)))
    result = subprocess.run([sys.executable, "-c", THREE_MODELS, *places], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < size / 2
