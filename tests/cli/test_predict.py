"""`predict` and `inspect`, on a tiny random model under the real Cog runtime."""

import json
import os
import subprocess
import sys

import numpy
import pytest
import torch

from .commands import cogsmith

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cog-server")]


def test_predict_prints_text_on_stdout_and_metrics_on_stderr(built):
    _, root = built
    result = cogsmith(root, "predict", "tiny", "--prompt", "Hello", "--max-tokens", "5")
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert "5 tokens in, 5 out, the first after" in result.stderr


def test_predict_takes_inputs_by_name_and_keeps_the_files_of_an_answer(built):
    model, root = built
    begin = ("-i", "prompt=Hello", "-i", "max_new_tokens=4", "-i", "return_cache=true", "--save", "kept")
    result = cogsmith(root, "predict", "tiny", *begin)
    assert result.returncode == 0, result.stderr
    begun = json.loads(result.stdout)
    assert begun["cache"] == "kept/cache.safetensors"
    go_on = ("-i", "cache=@kept/cache.safetensors", "-i", "return_logits=last", "--max-tokens", "2", "--save", "kept")
    went_on = json.loads(cogsmith(root, "predict", "tiny", *go_on).stdout)
    ids = begun["prompt_ids"] + begun["token_ids"]
    assert (went_on["prompt_ids"], went_on["cached_tokens"]) == (ids, len(ids) - 1)
    with numpy.load(root / "kept" / "arrays.npz") as arrays, torch.no_grad():
        expected = model(torch.tensor([[*ids, went_on["token_ids"][0]]])).logits[0, -2:]
        torch.testing.assert_close(torch.from_numpy(arrays["logits"]), expected, atol=1e-4, rtol=0)


def test_predict_takes_an_lmtp_batch_from_stdin(built):
    _, root = built
    batch = [["SCORE", {"prompt": [1, 2], "scored": [3, 4], "stream_id": 7}]]
    inputs = json.dumps({"ops_batch_json": json.dumps(batch)})
    result = cogsmith(root, "predict", "tiny", "--json", "-", input=inputs)
    assert result.returncode == 0, result.stderr
    payloads = [json.loads(line.split(" ", 1)[1]) for line in result.stdout.split("\n") if line]
    assert [payload["token"] for payload in payloads] == [3, 4]


def test_predict_ends_well_when_its_reader_has_enough(built):
    _, root = built
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "cogsmith.cli.main", "predict", "tiny", "--prompt", "Hello"]
    with open(write, "wb") as closed:
        result = subprocess.run(command, cwd=root, stdout=closed, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_predict_says_why_a_prediction_failed(built):
    _, root = built
    result = cogsmith(root, "predict", "tiny", "--json", "-", input='{"messages": [{"role": "user", "content": "x"}]}')
    assert result.returncode == 1
    assert "no chat template" in result.stderr


def test_inspect_agrees_with_the_loaded_model(built):
    model, root = built
    facts = json.loads(cogsmith(root, "inspect", "tiny", "--json").stdout)
    assert facts["n_params"] == sum(parameter.numel() for parameter in model.parameters())
    assert facts["footprint_bytes"] == model.get_memory_footprint()
    assert facts["layers"] == model.config.num_hidden_layers
    assert "tree" not in facts
    assert json.loads(cogsmith(root, "inspect", "tiny", "--json", "--tree").stdout)["tree"] == str(model)
    text = cogsmith(root, "inspect", "tiny", "--tree").stdout
    assert f"Memory footprint: {model.get_memory_footprint() / 1e6:,.1f} MB" in text
    assert str(model) in text
    assert (facts["heads"], facts["key_value_heads"], facts["hidden_size"]) == (4, 2, 32)
    parts = [facts[name] for name in ("layer", "attention", "mlp", "norms")]
    assert parts == ["LlamaDecoderLayer", "LlamaAttention", "LlamaMLP", "LlamaRMSNorm"]
    assert (facts["embedding"], facts["head"]) == (str(model.model.embed_tokens), str(model.lm_head))
    assert facts["memory_footprint"] == model.get_memory_footprint() == facts["footprints"]["fp32"]
    assert f"it would be {model.get_memory_footprint() / 1e6:,.1f} MB in fp32, " in text
