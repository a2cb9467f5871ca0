"""How a checkpoint is loaded: the arguments of `from_pretrained`, the type, the threads."""

import pytest
import torch
from transformers import BitsAndBytesConfig

from cogsmith.engine import loader
from cogsmith.engine.loader import limit_threads, load
from cogsmith.engine.quantization import translate
from cogsmith.errors import UserError

from .models import tiny_llama


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


@pytest.mark.parametrize(
    ("asked", "computes"), [({}, "bfloat16"), ({"dtype": "auto"}, "bfloat16"), ({"dtype": "float16"}, "float16")]
)
def test_four_bits_compute_in_a_dtype_that_has_a_name(folder, cpu, monkeypatch, asked, computes):
    class Stop(Exception):
        pass

    def from_pretrained(_folder, **arguments):
        raise Stop(arguments)

    cpu(bf16=True)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", from_pretrained)
    with pytest.raises(Stop) as caught:
        load(folder, {"load_in_4bit": True, **asked}, name="m")
    (arguments,) = caught.value.args
    config = BitsAndBytesConfig.from_dict(arguments["quantization_config"])
    assert config.load_in_4bit
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_use_double_quant) == ("nf4", True)
    assert config.bnb_4bit_compute_dtype == getattr(torch, computes)
    assert not {"load_in_4bit", "torch_dtype"} & arguments.keys()


def test_the_users_own_quantisation_keys_win_and_others_pass_through():
    given = {"load_in_4bit": True, "bnb_4bit_quant_type": "fp4", "attn_implementation": "eager"}
    translated = translate(given, "float16")
    assert translated["quantization_config"]["bnb_4bit_quant_type"] == "fp4"
    assert translated.keys() == {"attn_implementation", "quantization_config"}
    assert translate({"load_in_8bit": False, "a": 1}, "float16") == {"a": 1}


def test_four_and_eight_bits_at_once_are_refused():
    with pytest.raises(UserError, match=r"config\.load_in_4bit and config\.load_in_8bit are both true"):
        translate({"load_in_4bit": True, "load_in_8bit": True}, "float16")


@pytest.mark.parametrize(("quota", "environ", "threads"), [(2, {}, 2), (1000, {}, 8), (2, {"OMP_NUM_THREADS": "8"}, 8)])
def test_torch_gets_the_threads_that_the_container_may_use(monkeypatch, quota, environ, threads):
    count = [8]
    monkeypatch.setattr(loader, "_cpu_quota", lambda: quota)
    monkeypatch.setattr(torch, "get_num_threads", lambda: count[0])
    monkeypatch.setattr(torch, "set_num_threads", lambda number: count.__setitem__(0, number))
    limit_threads(environ)
    assert count == [threads]
