"""The comparison as it is run, on a tiny model: engines in processes of their own, and one that is not there."""

import json
import os
import subprocess
import sys

import pytest

from ..engine.models import byte_tokenizer, tiny_llama
from .conftest import BENCHMARKS


@pytest.mark.slow
def test_it_compares_engines_that_compute_the_same(tmp_path):
    tiny_llama(vocab_size=256, max_position_embeddings=2048).save_pretrained(tmp_path / "tiny")
    byte_tokenizer().save_pretrained(tmp_path / "tiny")
    what = ["--engines=ours,generate,batching,cog,vllm", "--rows=one,masks8,growing4,score"]
    how = ["--repeat=1", "--threads=1", "--dtype=float32", f"--json={tmp_path / 'found.json'}"]
    command = [sys.executable, "-m", "engines", tmp_path / "tiny", *what, *how]
    paths = os.pathsep.join([str(BENCHMARKS), str(BENCHMARKS.parent / "src")])
    environment = os.environ | {"PYTHONPATH": paths, "COGSMITH_CACHE": str(tmp_path / "cache")}
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=250, check=False)
    assert ran.returncode == 0, ran.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    check = {label: values for label, values in found["samples"].items() if label.startswith("check: ")}
    same, difference = check.values()
    assert same == {"generate": [64], "batching": [64], "cog": [64]}
    assert set(difference) == {"generate", "cog"}
    assert max(value for values in difference.values() for value in values) < 1e-3
    assert found["samples"]["one stream: tokens/s"].keys() == {"ours", "generate", "batching", "cog"}
    assert "| one stream: tokens/s | " in ran.stdout
    assert "no environment of vLLM was named" in ran.stdout
