"""How a checkpoint is loaded: the arguments of `from_pretrained`, the type, the threads."""

import pytest
import torch
import transformers

from cogsmith.engine import loader
from cogsmith.engine.loader import limit_threads, load
from cogsmith.errors import UserError

from .models import byte_tokenizer, tiny_llama


@pytest.fixture
def folder(tmp_path):
    tiny_llama().to(torch.float16).save_pretrained(tmp_path)
    return tmp_path


@pytest.fixture
def cpu(monkeypatch):
    """A machine without a GPU, whose processor computes bfloat16 or not."""

    def cpu(*, bf16):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr(loader, "_cpu_computes_bf16", lambda: bf16)

    return cpu


@pytest.mark.parametrize(("bf16", "dtype"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_what_the_cpu_computes_well(tmp_path, cpu, stored, bf16, dtype):
    tiny_llama().to(stored).save_pretrained(tmp_path)
    cpu(bf16=bf16)
    info = load(tmp_path, {}, name="m").info(runner="r", max_context=None)
    assert (info.dtype, info.device) == (dtype, "cpu")


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize("asked", ["float16", "float32", "auto"])
def test_the_config_overrides_the_dtype(folder, cpu, key, asked):
    cpu(bf16=True)
    expected = torch.float16 if asked == "auto" else getattr(torch, asked)
    assert load(folder, {key: asked}, name="m").model.dtype == expected


@pytest.mark.parametrize(("quota", "environ", "threads"), [(2, {}, 2), (1000, {}, 8), (2, {"OMP_NUM_THREADS": "8"}, 8)])
def test_torch_gets_the_threads_that_the_container_may_use(monkeypatch, quota, environ, threads):
    count = [8]
    monkeypatch.setattr(loader, "_cpu_quota", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: count.__setitem__(0, number))
    limit_threads(environ)
    assert count == [threads]


@pytest.mark.parametrize("special", [{"eos_token": "<end>"}, {"eos_token": "<end>", "pad_token": "<pad>"}, {}])
def test_a_tokenizer_without_padding_gets_its_end_token_and_that_is_said_once(tmp_path, caplog, special):
    tiny_llama(vocab_size=300).save_pretrained(tmp_path)
    byte_tokenizer(**special).save_pretrained(tmp_path)
    with caplog.at_level("WARNING", logger="cogsmith.engine"):
        loaded = load(tmp_path, {}, name="m")
    assert loaded.tokenizer.pad_token == special.get("pad_token", special.get("eos_token"))
    warned = [record.message for record in caplog.records if "padding" in record.message]
    assert len(warned) == (special.keys() == {"eos_token"})
    assert all("<end>" in message for message in warned)


def test_a_classifier_is_not_given_a_made_up_head(tmp_path):
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="tiny is a BertForSequenceClassification, which sorts texts into classes"):
        load(tmp_path, {}, name="tiny")
