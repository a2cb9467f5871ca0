"""A model class that transformers does not have, from config.toml through the real build to the real Cog server."""

import asyncio
import json
import os
import shutil
import subprocess
import sys

import httpx2
import pytest
import torch

from cogsmith import config
from cogsmith.client import connect
from cogsmith.client.cog_server import Prediction
from cogsmith.gateway import cog_process
from cogsmith.sources.silent import Silent
from cogsmith.workdir import lint
from cogsmith.workdir.build import build

from ..engine.models import byte_tokenizer
from ..engine.own_models import FLAT, WINDY, flat, windy

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("cog-server")]

CONFIG = """
[models.windy]
source = "./windy"
cog.gpu = false
limits.max_batch_size = 4
code.path = "{windy}"
code.model_type = "windy"
code.config = "configuration_windy.WindyConfig"
code.model = "modeling_windy.WindyForCausalLM"

[models.flat]
source = "./flat"
cog.gpu = false
limits.max_batch_size = 4
code.path = "{flat}/flat.py"
code.model_type = "flat"
code.config = "FlatConfig"
code.model = "FlatLM"
"""
MAKERS = {"windy": windy, "flat": flat}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    for name, make in MAKERS.items():
        make().save_pretrained(root / name)
        byte_tokenizer().save_pretrained(root / name)
    (root / "config.toml").write_text(CONFIG.format(windy=WINDY, flat=FLAT))
    for built in build(config.load(root / "config.toml"), reporter=Silent(), cache=root / "cache"):
        assert lint.check(built.folder) == []
    return root


@torch.no_grad()
def plain_logprobs(model, ids):
    return torch.log_softmax(model(input_ids=torch.tensor([list(ids)])).logits[0].float(), dim=-1)


def items_of(url, *operations):
    text = "".join(Prediction(url, {"ops_batch_json": json.dumps(operations)}).chunks())
    return [json.loads(line.split(" ", 1)[1]) for line in text.splitlines()]


@pytest.mark.parametrize(("name", "runner"), [("windy", "packed"), ("flat", "recompute")])
def test_it_is_served_with_the_numbers_of_the_class_run_plainly(project, name, runner):
    model = MAKERS[name]()
    prompts = {1: list(range(1, 40)), 2: [7], 3: [200, 3, 77, 4]}
    operations = [
        ["GENERATE", {"prompt": prompt, "stream_id": stream, "max_tokens": 16, "top_logprobs": 3}]
        for stream, prompt in prompts.items()
    ]
    with cog_process.running(project / "work" / name) as server:
        (answer,) = items_of(server.url, ["MODEL_INFO", {"stream_id": 1}])
        assert runner in json.dumps(answer["model_info"])
        items = items_of(server.url, *operations)
        written = httpx2.post(
            f"{server.url}/predictions", json={"input": {"prompt": "Hello", "max_tokens": 3}}, timeout=60
        ).json()
        assert written["status"] == "succeeded"
    for stream, prompt in prompts.items():
        mine = [item for item in items if item["stream_id"] == stream]
        plain = plain_logprobs(model, [*prompt, *(item["token"] for item in mine)])
        assert len(mine) == 16
        for position, item in enumerate(mine, start=len(prompt) - 1):
            assert item["token"] == plain[position].argmax()
            for token, logprob in item["top_logprobs"].items():
                assert logprob == pytest.approx(plain[position, int(token)].item(), abs=1e-4)


def test_it_runs_in_the_caller_s_process(project):
    async def answer():
        async with connect(f"local:{project / 'work/windy'}") as client:
            stream = client.generate([5, 6, 7], max_tokens=8)
            return [token.token async for token in stream]

    tokens = asyncio.run(answer())
    plain = plain_logprobs(windy(), [5, 6, 7, *tokens])
    assert tokens == plain[2:-1].argmax(-1).tolist()


def test_its_command_line(project):
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "cogsmith.cli.main", "inspect", "flat", "--json"]
    facts = json.loads(subprocess.run(command, cwd=project, env=environ, capture_output=True, check=True).stdout)
    assert facts["n_params"] == sum(parameter.numel() for parameter in flat().parameters())


def test_a_class_that_does_not_fit_ends_the_server_with_the_reason(project, tmp_path):
    folder = shutil.copytree(project / "work/flat", tmp_path / "flat")
    file = folder / "model_code/flat.py"
    file.write_text(file.read_text().replace("    config_class = FlatConfig\n", ""))
    with pytest.raises(Exception, match="config_class") as error, cog_process.running(folder) as server:
        server.wait_until_ready(60)
    assert "flat.FlatLM has no config_class" in str(error.value)


def test_a_composer_checkpoint_of_such_a_class_becomes_a_work_directory(project):
    """Composer names the class in what it saves; transformers cannot check the weights, the server does."""
    model = windy()
    state = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    saved = {"config": {"file_extension": ".json", "content": model.config.to_diff_dict()}}
    saved["config"]["class"] = "acme.modeling_windy.WindyForCausalLM"
    integrations = {"huggingface": {"model": saved, "tokenizer": {}}}
    torch.save({"state": {"model": state, "integrations": integrations}, "rng": []}, project / "ep1.pt")
    text = CONFIG.format(windy=WINDY, flat=FLAT).replace(
        'source = "./windy"', 'source = "./ep1.pt"\nformat = "composer"'
    )
    (project / "composer.toml").write_text(text.replace("models.windy", "models.composed"))
    (built,) = build(config.load(project / "composer.toml"), ["composed"], reporter=Silent(), cache=project / "cache")
    with cog_process.running(built.folder) as server:
        items = items_of(server.url, ["GENERATE", {"prompt": [1, 2, 3], "stream_id": 1, "max_tokens": 8}])
    plain = plain_logprobs(model, [1, 2, 3, *(item["token"] for item in items)])
    assert [item["token"] for item in items] == plain[2:-1].argmax(-1).tolist()
