"""`cogsmith generate`, of a foreign server that speaks LMTP 1.0 and nothing more."""

import json
import signal
import subprocess
import sys
import time

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from ..e2e.conftest import byte_tokenizer
from . import lmtp_server


@pytest.fixture
def tokenizer_folder(tmp_path):
    byte_tokenizer().save_pretrained(tmp_path / "tokenizer")
    return str(tmp_path / "tokenizer")


def test_a_foreign_server_of_lmtp_1_0_is_asked_for_all_at_once_and_nothing_new(project, tokenizer_folder):
    with lmtp_server.running() as (server, url):
        arguments = ("--prompts", "Hello", "Hi", "--max-tokens", "3", "--tokenizer", tokenizer_folder)
        result = project.run("generate", url, *arguments, "--json")
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert [row["ids"] for row in answer["generations"]] == [[lmtp_server.TOKEN] * 3] * 2
    assert answer["report"]["n_params"] is None
    assert "seed" not in answer["report"]["generate_kwargs"]
    assert len({operation["connection"] for operation in server.received}) == 1
    for operation in server.received:
        assert not {"seed", "n", "lmtp", "stop"} & operation.keys()
        assert (operation["temperature"], operation["top_k"], operation["max_tokens"]) == (1.0, 50, 3)


@pytest.mark.parametrize(("pad", "counted"), [(None, 0), (9, 3)])
def test_end_tokens_count_where_the_model_is_not_padded_with_them(project, tmp_path, pad, counted):
    tokenizer = byte_tokenizer()
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(lmtp_server.TOKEN)
    tokenizer.pad_token = None if pad is None else tokenizer.convert_ids_to_tokens(pad)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    with lmtp_server.running() as (_, url):
        arguments = ("--prompts", "Hi", "--max-tokens", "3", "--tokenizer", str(tmp_path / "tokenizer"), "--json")
        result = project.run("generate", url, *arguments)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["report"]["output_tokens"] == [counted]


def test_a_continuation_keeps_the_space_before_its_first_word(project, tmp_path):
    """Tokenizers of SentencePiece's kind leave it out where a text begins."""
    words = {piece: id_ for id_, piece in enumerate(["▁Once", "▁upon", "<unk>"])} | {"▁time": lmtp_server.TOKEN}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with lmtp_server.running() as (_, url):
        arguments = ("--prompts", "Once upon", "--max-tokens", "2", "--tokenizer", str(tmp_path / "tokenizer.json"))
        result = project.run("generate", url, *arguments)
    assert result.stdout.splitlines()[1] == "Once upon time time"


def test_what_a_server_cannot_do_is_said(project, tokenizer_folder):
    with lmtp_server.running() as (_, url):
        result = project.run("generate", url, "--prompts", "Hello", "--seed", "1", "--tokenizer", tokenizer_folder)
    assert result.returncode == 1
    assert "seed" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_an_interrupt_ends_the_generation_on_the_server(project, tokenizer_folder, how):
    with lmtp_server.running() as (server, url):
        arguments = ("--prompts", "Hello", "--max-tokens", "1000000", "--tokenizer", tokenizer_folder, *how)
        process = subprocess.Popen(
            [sys.executable, "-m", "cogsmith.cli.main", "generate", url, *arguments],
            env=project.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: server.received)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        assert server.left.wait(20)
    assert (process.returncode, said) == (130, b"")


def test_a_reader_that_has_enough_ends_the_generation_well(project, tokenizer_folder):
    with lmtp_server.running() as (server, url):
        arguments = ("--prompts", "Hello", "--max-tokens", "1000000", "--tokenizer", tokenizer_folder, "--stream")
        process = subprocess.Popen(
            [sys.executable, "-m", "cogsmith.cli.main", "generate", url, *arguments],
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdout.read(200)
        process.stdout.close()
        assert process.wait(20) == 0
        assert server.left.wait(20)
        assert process.stderr.read() == b""


def wait_for(condition):
    """Wait until `condition` holds, 20 seconds at most."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
