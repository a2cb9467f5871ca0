"""`cogsmith generate`, against plain transformers over the same checkpoint."""

import json
import re

import pytest

LINE = "#" * 100
GREEDY = ("--temperature", "0")


def slow(test):
    """Mark a test that needs the real Cog runtime."""
    return pytest.mark.slow(pytest.mark.xdist_group("cog-server")(test))


def greedy(plain, prompt, count):
    """The ids and the text with which the plain model goes on."""
    ids = plain.greedy(plain.encode(prompt), count)
    return ids, plain.decode(ids)


@slow
def test_json_holds_what_the_plain_model_gives(tiny_server):
    """Two prompts of unequal lengths in one batch, each as if it were alone."""
    plain, prompts = tiny_server.plain, ["Once upon a time", "Hi"]
    answer = tiny_server.run_json("generate", tiny_server.url, "--prompts", *prompts, "--max-tokens", "12", *GREEDY)
    for prompt, row in zip(prompts, answer["generations"], strict=True):
        ids, text = greedy(plain, prompt, 12)
        assert (row["prompt"], row["prompt_ids"]) == (prompt, plain.encode(prompt))
        assert (row["ids"], row["text"], row["finish_reason"]) == (ids, text, "length")
        assert row["logprobs"] == pytest.approx(plain.score(row["prompt_ids"], ids), abs=1e-4)
        assert "top_logprobs" not in row


@slow
def test_the_report_counts_what_was_generated(tiny_server):
    prompts = ["Once upon a time", "Hi"]
    answer = tiny_server.run_json("generate", tiny_server.url, "--prompts", *prompts, "--max-tokens", "12", *GREEDY)
    report = answer["report"]
    assert report["n_params"] == sum(parameter.numel() for parameter in tiny_server.plain.model.parameters())
    assert report["memory_footprint"] == tiny_server.plain.model.get_memory_footprint()
    assert (report["bs"], report["input_tokens"], report["output_tokens"]) == (2, [16, 2], [12, 12])
    parts = [report[f"{name}_latency"] for name in ("encode", "gen", "decode")]
    assert min(parts) > 0
    assert report["total_latency"] == sum(parts)
    assert report["latency_per_output_token"] == pytest.approx(report["total_latency"] / 24)
    assert 0 < report["time_to_first_token"] <= report["gen_latency"]
    assert report["generate_kwargs"] == {
        "max_tokens": 12,
        "temperature": 0.0,
        "top_p": 1.0,
        "top_k": 50,
        "n": 1,
        "top_logprobs": 0,
        "seed": 42,
    }


@slow
def test_text_comes_between_lines_of_hashes_and_the_report_on_stderr(tiny_server):
    prompts = ["Once upon a time", "Hi"]
    result = tiny_server.run("generate", tiny_server.url, "--prompts", *prompts, "--max_new_tokens", "9", *GREEDY)
    blocks = [f"{LINE}\n{prompt}{greedy(tiny_server.plain, prompt, 9)[1]}\n" for prompt in prompts]
    assert result.stdout.decode() == f"{''.join(blocks)}{LINE}\n"
    report = result.stderr.decode().splitlines()
    assert report[1].startswith("Generate kwargs: {'max_tokens': 9, 'temperature': 0.0,")
    assert report[2] == "bs=2, input_tokens=[16, 2], output_tokens=[9, 9]"
    assert re.fullmatch(r"output_tok_per_sec=[\d.]+tok/sec", report[-2])
    assert report[-1] == f"Memory footprint: {tiny_server.plain.model.get_memory_footprint() / 1e6:,.1f} MB"


@slow
def test_streamed_text_is_the_same_text(tiny_server):
    arguments = ("generate", tiny_server.url, "--prompts", "Hello", "--max-tokens", "40", *GREEDY)
    whole, streamed = tiny_server.run(*arguments), tiny_server.run(*arguments, "--stream")
    assert streamed.returncode == 0, streamed.stderr.decode()
    assert streamed.stdout == whole.stdout
    assert b"output_tokens=[40]" in streamed.stderr


@slow
@pytest.mark.parametrize("how", [(), ("--stream",)])
def test_text_ends_before_a_stop_text(tiny_server, how):
    _, text = greedy(tiny_server.plain, "Hello", 30)
    stop = next(text[at : at + 2] for at in range(8, len(text)) if text[at : at + 2].isascii())
    result = tiny_server.run(
        "generate", tiny_server.url, "--prompts", "Hello", "--stop", "never", stop, "--max-tokens", "30", *GREEDY, *how
    )
    assert result.stdout.decode() == f"{LINE}\nHello{text[: text.index(stop)]}\n{LINE}\n"


@slow
def test_a_stop_is_named_and_its_tokens_are_counted(tiny_server):
    ids, _ = greedy(tiny_server.plain, "Hello", 30)
    at = next(i for i in range(3, 30) if tiny_server.plain.decode([ids[i]]).isascii())
    stop = tiny_server.plain.decode([ids[at]])
    arguments = ("--prompts", "Hello", "--stop", stop, "--max-tokens", "30", *GREEDY)
    answer = tiny_server.run_json("generate", tiny_server.url, *arguments)
    (row,) = answer["generations"]
    first = ids.index(ids[at])
    assert (row["finish_reason"], row["stop"], row["ids"]) == ("stop_sequence", stop, ids[: first + 1])
    assert answer["report"]["output_tokens"] == [first + 1]


@slow
def test_a_seed_repeats_its_draws_and_another_one_differs(tiny_server):
    def ids(*arguments):
        answer = tiny_server.run_json("generate", tiny_server.url, "--prompts", "Hi", "--max-tokens", "20", *arguments)
        return [row["ids"] for row in answer["generations"]]

    by_default = ids()
    assert by_default == ids("--seed", "42") == ids("--seed", "42", "--warmup")
    assert ids("--seed", "43") != by_default
    assert ids("--seed", "42", "--n", "2") == [*by_default, *ids("--seed", "43")]
    assert ids("--top_k", "1") == [greedy(tiny_server.plain, "Hi", 20)[0]]


@slow
def test_the_likeliest_tokens_are_listed(tiny_server):
    plain = tiny_server.plain
    arguments = ("--prompts", "Hello", "--max-tokens", "4", "--top-logprobs", "3", *GREEDY)
    (row,) = tiny_server.run_json("generate", tiny_server.url, *arguments)["generations"]
    for at, listed in enumerate(row["top_logprobs"]):
        best = plain.logprobs([*row["prompt_ids"], *row["ids"][:at]])[-1].topk(3)
        assert [int(id_) for id_ in sorted(listed, key=lambda id_: -listed[id_])] == best.indices.tolist()
    table = tiny_server.run("generate", tiny_server.url, *arguments).stdout.decode().splitlines()[-4:]
    for token, logprob, line in zip(row["ids"], row["logprobs"], table, strict=True):
        assert line.startswith(repr(plain.decode([token])))
        assert f"{logprob:.4f}" in line


@slow
def test_messages_go_through_the_models_template(tiny_server):
    messages = [{"role": "user", "content": "Hi"}]
    answer = tiny_server.run_json(
        "generate", tiny_server.url, "--messages", json.dumps(messages), "--max-tokens", "8", *GREEDY
    )
    (row,) = answer["generations"]
    assert row["prompt"] == messages
    assert (row["prompt_ids"], row["ids"]) == (
        tiny_server.plain.encode("<user>Hi<assistant>"),
        greedy(tiny_server.plain, "<user>Hi<assistant>", 8)[0],
    )


@slow
def test_prompts_come_from_a_file(tiny_server):
    (tiny_server.root / "prompts.txt").write_text("one|two|")
    arguments = ("--prompts", "zero", "file::prompts.txt", "--prompt-delimiter", "|", "--max-tokens", "1")
    answer = tiny_server.run_json("generate", tiny_server.url, *arguments)
    assert [row["prompt"] for row in answer["generations"]] == ["zero", "one", "two"]


@slow
def test_the_name_of_a_work_directory_runs_it_in_this_process(tiny_server):
    answer = tiny_server.run_json("generate", "tiny", "--prompts", "Hello", "--max-tokens", "6", *GREEDY)
    assert answer["generations"][0]["ids"] == greedy(tiny_server.plain, "Hello", 6)[0]


@slow
def test_a_deadline_that_passes_is_an_error(tiny_server):
    arguments = ("--prompts", "Hello", "--max-tokens", "8000", "--deadline", "0.5")
    result = tiny_server.run("generate", tiny_server.url, *arguments)
    assert (result.returncode, result.stdout) == (1, b"")
    assert b"0.5 seconds" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "either --prompts"),
        (["--prompts", "a", "--messages", "[]"], "either --prompts"),
        (["--prompts", "a", "b", "--stream"], "single prompt"),
        (["--prompts", "a", "--stream", "--json"], "without --json"),
        (["--prompts", "a", "--stream", "--n", "2"], "single continuation"),
        (["--prompts", "a", "--max-tokens", "0"], "--max-tokens"),
    ],
)
def test_wrong_usage_exits_with_2(project, arguments, words):
    result = project.run("generate", "tiny", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("tony", "'tony' is no work directory"),
        ("local:tony", "there is no work directory 'tony'"),
        ("ftp://x", "ftp"),
        ("replicate:me/tiny", "REPLICATE_API_TOKEN"),
    ],
)
def test_an_endpoint_that_is_none_is_said_so(project, endpoint, words):
    project.environment.pop("REPLICATE_API_TOKEN", None)
    project.environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # a name may be one of the Hub's
    result = project.run("generate", endpoint, "--prompts", "a")
    assert (result.returncode, result.stdout) == (1, "")
    assert words in result.stderr
    assert "fix:" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompts", "file::gone.txt"], "gone.txt cannot be read"),
        (["--prompts", "file::empty.txt"], "empty.txt holds no prompt"),
        (["--messages", "gone.json"], "gone.json cannot be read"),
        (["--messages", "[1]"], "no list of messages"),
        (["--messages", "{"], "cannot be read as JSON"),
    ],
)
def test_inputs_that_cannot_be_read_are_said_so(project, arguments, words):
    project.write("empty.txt", "")
    result = project.run("generate", "http://127.0.0.1:9", *arguments)
    assert (result.returncode, result.stdout) == (1, "")
    assert words in result.stderr
    assert "fix:" in result.stderr
