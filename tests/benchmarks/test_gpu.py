"""`benchmarks/gpu.py` with a tiny model on the CPU: it runs, and would see an engine that is wrong."""

import copy
import json
import sys

import gpu
import pytest
import torch


@pytest.fixture(scope="module")
def model():
    return gpu.random_model("tiny", "cpu")


def test_it_prints_what_it_found(monkeypatch, tmp_path, capsys):
    arguments = ["--size=tiny", "--device=cpu", "--streams=1,3", "--tokens=4", f"--json={tmp_path / 'found.json'}"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    gpu.main()
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["differences"]["this engine, float32"] < 1e-4
    assert found["differences"]["this engine, bfloat16"] < 5 * found["differences"]["plain bfloat16"]
    assert [speed["streams"] for speed in found["speeds"]] == [1, 3]
    assert all(speed["decode_tokens_per_second"] > 0 for speed in found["speeds"])
    assert "| 3 | " in capsys.readouterr().out


def test_a_wrong_engine_is_seen(model):
    truth = copy.deepcopy(model).float()
    wrong = copy.deepcopy(truth)
    with torch.no_grad():
        wrong.model.layers[1].mlp.up_proj.weight[0] *= 2
    engine = gpu.engine_over(wrong, 8)
    try:
        assert gpu.largest_difference(engine, truth) > 1e-3
    finally:
        engine.close()


def test_a_step_reads_each_weight_once_and_the_keys_and_values(model):
    head, body = 512 * 64, 2 * (64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 128 + 2 * 64) + 64
    kept = 2 * 2 * 2 * 16  # keys and values, of 2 layers with 2 heads of 16 numbers
    assert gpu.bytes_per_step(model, 10) == 2 * (head + body + 10 * kept)
