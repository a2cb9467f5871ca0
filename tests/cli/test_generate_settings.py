"""Several settings, batches, templates and local models, against plain transformers over the same checkpoint."""

from __future__ import annotations

import io
import json

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from cogsmith.cli import generate as command
from cogsmith.cli import settings
from cogsmith.cli.main import app

from ..e2e.plain import PlainModel
from ..engine.models import byte_tokenizer, tiny_llama

LINE = "#" * 100
ALPACA = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request.\n\n### Instruction:\n{}\n\n### Input:\n{}\n\n### Response:"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint whose end token, which also pads, comes among the first it says after `Hello`."""
    root = tmp_path_factory.mktemp("plain")
    tiny_llama(vocab_size=256, max_position_embeddings=512).save_pretrained(root)
    byte_tokenizer().save_pretrained(root)
    free = PlainModel(root)
    end = free.greedy(free.encode("Hello"), 6)[5]
    tiny_llama(vocab_size=256, max_position_embeddings=512, eos_token_id=end).save_pretrained(root)
    byte_tokenizer(eos_token=free.tokenizer.convert_ids_to_tokens(end)).save_pretrained(root)
    return root


@pytest.fixture(scope="module")
def plain(folder):
    return PlainModel(folder)


def run(*arguments, **given):
    return CliRunner().invoke(app, ["generate", *map(str, arguments)], **given)


def facts(*arguments, **given):
    result = run(*arguments, "--json", **given)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout)


def ids_of(answer):
    return [row["ids"] for row in answer["generations"]]


def test_every_combination_is_a_run_and_what_changes_is_its_label():
    runs, changing = settings.product({"max_tokens": 3}, {"temperature": [0.5, 1.0], "top_k": [5], "seed": [1, 2, 3]})
    assert changing == ("temperature", "seed")
    assert [(one["temperature"], one["seed"]) for one in runs] == [(t, s) for t in (0.5, 1.0) for s in (1, 2, 3)]
    assert {(one["max_tokens"], one["top_k"]) for one in runs} == {(3, 5)}
    assert settings.label(runs[4], changing) == "temperature=1.0, seed=2"
    assert settings.product({}, {"temperature": [1.0], "seed": None}) == ([{"temperature": 1.0}], ())


@pytest.mark.slow
def test_each_run_is_what_it_is_alone(folder, plain):
    base = (folder, "--prompts", "Hello", "you", "--max-tokens", "9")
    answer = facts(*base, "--temperature", "0", "0.8", "--seed", "1", "2", "--repetition-penalty", "1.0", "1.5")
    kwargs = [one["report"]["generate_kwargs"] for one in answer["runs"]]
    assert [(k["temperature"], k["repetition_penalty"], k["seed"]) for k in kwargs] == [
        (t, p, s) for t in (0.0, 0.8) for p in (1.0, 1.5) for s in (1, 2)
    ]
    for kwarg, one in zip(kwargs, answer["runs"], strict=True):
        alone = [f"--{name}={kwarg[name]}" for name in ("temperature", "repetition_penalty", "seed")]
        if kwarg["temperature"]:
            assert ids_of(one) == ids_of(facts(*base, *alone))
            continue
        for row in one["generations"]:
            prompt = torch.tensor([row["prompt_ids"]])
            theirs = plain.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                do_sample=False,
                max_new_tokens=9,
                repetition_penalty=kwarg["repetition_penalty"],
            )
            assert row["ids"] == theirs[0, prompt.shape[1] :].tolist()
    assert ids_of(answer["runs"][4]) != ids_of(answer["runs"][5])


@pytest.mark.slow
def test_texts_stand_below_their_settings_and_each_run_has_its_report(folder, plain, monkeypatch):
    said = io.StringIO()
    monkeypatch.setattr(command, "err", Console(file=said, soft_wrap=True))
    result = run(folder, "--prompts", "Hello", "--max-tokens", "3", "--no-do-sample", "--seed", "1", "2")
    text = plain.decode(plain.greedy(plain.encode("Hello"), 3))
    block = f"{LINE}\nHello{text}\n{LINE}\n"
    assert result.stdout == f"seed=1\n{block}seed=2\n{block}"
    assert [line for line in said.getvalue().splitlines() if line.startswith(("seed=", "bs="))] == [
        "seed=1",
        "bs=1, input_tokens=[5], output_tokens=[3]",
        "seed=2",
        "bs=1, input_tokens=[5], output_tokens=[3]",
    ]


@pytest.mark.slow
def test_the_report_is_that_of_the_original_over_padded_rows(folder, plain):
    """Its own reckoning: rows padded on the left, ids that are no padding before and after; here the end token pads."""
    prompts, pad = ["Hello", "a longer one", "x"], plain.eos
    answer = facts(folder, "--prompts", *prompts, "--max-tokens", "12", "--temperature", "0")
    rows = answer["generations"]
    assert "stop" in [row["finish_reason"] for row in rows]
    width = max(len(row["prompt_ids"]) for row in rows)
    padded = [[pad] * (width - len(row["prompt_ids"])) + row["prompt_ids"] for row in rows]
    longest = max(len(row["ids"]) for row in rows)
    whole = [
        before + row["ids"] + [pad] * (longest - len(row["ids"])) for before, row in zip(padded, rows, strict=True)
    ]
    inputs = (torch.tensor(padded) != pad).sum(1)
    outputs = (torch.tensor(whole) != pad).sum(1) - inputs
    report = answer["report"]
    assert report["bs"] == 3
    assert (report["input_tokens"], report["output_tokens"]) == (inputs.tolist(), outputs.tolist())
    total = report["encode_latency"] + report["gen_latency"] + report["decode_latency"]
    assert report["total_latency"] == total
    assert report["latency_per_output_token"] == pytest.approx(total / int(outputs.sum()))
    assert report["output_tok_per_sec"] == pytest.approx(1000 * int(outputs.sum()) / total)
    assert report["n_params"] == sum(parameter.numel() for parameter in plain.model.parameters())


@pytest.mark.slow
def test_batches_of_prompts_say_the_same(folder):
    base = (folder, "--prompts", "Hello", "you", "there", "--max-tokens", "8", "--temperature", "0")
    answer = facts(*base, "--max_batch_size", "2")
    assert [one["report"]["bs"] for one in answer["runs"]] == [2, 1]
    assert [ids for one in answer["runs"] for ids in ids_of(one)] == ids_of(facts(*base))


@pytest.mark.slow
def test_prompts_come_from_stdin(folder):
    answer = facts(folder, "--prompts", "zero", "-", "--prompt_delimiter", "|", "--max-tokens", "1", input="one|two")
    assert [row["prompt"] for row in answer["generations"]] == ["zero", "one", "two"]
    assert "stdin holds no prompt" in str(run(folder, "--prompts", "-", input="").exception)


@pytest.mark.slow
def test_a_template_is_written_by_the_caller(folder, plain):
    """The ids are those of the text that Stanford Alpaca writes."""
    base = (folder, "--template", "alpaca", "--max-tokens", "4", "--temperature", "0")
    (row,) = facts(*base, "--instruction", "Add them.", "--input", "1 and 1")["generations"]
    assert row["prompt_ids"] == plain.encode(ALPACA.format("Add them.", "1 and 1"))
    assert row["ids"] == plain.greedy(row["prompt_ids"], 4)
    several = facts(*base, "--prompts", "Add them.", "Take one.", "--input", "1 and 1")
    assert [one["prompt_ids"] for one in several["generations"]] == [
        plain.encode(ALPACA.format(text, "1 and 1")) for text in ("Add them.", "Take one.")
    ]


@pytest.mark.slow
def test_the_stops_of_a_template_count_unless_others_are_named(folder):
    base = (folder, "--template", "vicuna_v1_1", "--messages", '[{"role": "user", "content": "Hi"}]')
    given = facts(*base, "--max-tokens", "1", "--stop", "x")["report"]["generate_kwargs"]["stop"]
    stated = facts(*base, "--max-tokens", "1")["report"]["generate_kwargs"]["stop"]
    assert (given, stated) == (["x"], ["</s>"])


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_another_token_ends_a_continuation_and_is_not_shown(folder, plain, how):
    made = plain.greedy(plain.encode("you"), 8)
    end = made[4]
    before = made[: made.index(end)]
    base = (folder, "--prompts", "you", "--max-tokens", "8", "--temperature", "0", "--eos_token_id", end)
    assert run(*base, *how).stdout == f"{LINE}\nyou{plain.decode(before)}\n{LINE}\n"
    assert ids_of(facts(*base)) == [[*before, end]]


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_and_the_models_own_end_token_is_a_token_like_others_then(folder, plain, how):
    ids = torch.tensor([plain.encode("Hello")])
    own = plain.model.config.eos_token_id
    other = next(token for token in range(256) if token != own)
    settings = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": other}
    (made,) = plain.model.generate(ids, eos_token_id=other, **settings)[:, ids.shape[1] :].tolist()
    assert own in made[:-1]
    base = (folder, "--prompts", "Hello", "--max-tokens", "12", "--temperature", "0", "--eos_token_id", other)
    assert ids_of(facts(*base)) == [made]
    shown = made[:-1] if made[-1] == other else made
    whole = plain.tokenizer.decode([*plain.encode("Hello"), *shown], skip_special_tokens=True)
    assert run(*base, *how).stdout == f"{LINE}\n{whole}\n{LINE}\n"


@pytest.mark.slow
def test_a_local_model_has_many_names(folder, plain, tmp_path, monkeypatch):
    expected = [plain.greedy(plain.encode("Hello"), 3)]
    monkeypatch.chdir(folder.parent)
    for name in (folder, folder.name, f"local:{folder}", f"local:{folder.name}"):
        answer = facts(name, "--prompts", "Hello", "--max-tokens", "3", "--temperature", "0")
        assert ids_of(answer) == expected
    with_type = facts(folder, "--prompts", "Hello", "--max-tokens", "3", "--temperature", "0", "--dtype", "float64")
    assert ids_of(with_type) == expected
    foreign = ("--device", "cpu", "--model_dtype", "fp32", "--attn_impl", "eager", "--do_sample", "False")
    ignored = ("--use_cache", "True", "--pad_token_id", "0")
    assert ids_of(facts(folder, "--prompts", "Hello", "--max_new_tokens", "3", *foreign, *ignored)) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--device", "cpu"], "--device: the server has loaded its model"),
        (["--model_dtype", "fp16", "--autocast_dtype", "bf16"], "--model_dtype, --autocast_dtype: the server has"),
        (["--no-autocast"], "--autocast_dtype bf16"),
        (["--no_repeat_ngram_size", "3"], "--repetition-penalty"),
        (["--pad_token_id", "-1"], "--pad"),
        (["--dtype", "float32"], "the server has loaded its model"),
        (["--temperatur", "1"], "did you mean --temperature?"),
        (["--seed", "1", "1"], "has a value twice"),
        (["--temperature", "0", "1", "--stream"], "single settings"),
        (["--input", "x"], "--input is for"),
        (["--system-prompt", "x"], "name a --template"),
        (["--instruction", "x"], "either --prompts"),
        (["--top-p", "1.5"], "--top"),
    ],
)
def test_what_a_server_cannot_be_asked_is_wrong_usage(arguments, words):
    result = run("http://127.0.0.1:9", "--prompts", "a", *arguments)
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())


def test_a_template_that_there_is_not():
    result = run("http://127.0.0.1:9", "--prompts", "a", "--template", "alpacca")
    assert "did you mean 'alpaca'" in str(result.exception)
