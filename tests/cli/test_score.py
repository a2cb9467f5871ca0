"""`cogsmith score`, against plain transformers over the same checkpoint."""

import math

import pytest

OPTIONS = [" cold", " warm", " it"]


def truth(plain, prompt, options):
    """For each option the log-probability of each of its tokens."""
    return [plain.score(plain.encode(prompt), plain.encode(option)) for option in options]


def shares(weights):
    """What each weight, a logarithm, is of all together."""
    masses = [math.exp(weight) for weight in weights]
    return [mass / sum(masses) for mass in masses]


def mean(values):
    return sum(values) / len(values)


@pytest.mark.slow
@pytest.mark.xdist_group("cog-server")
@pytest.mark.parametrize(
    ("normalise", "probabilities"),
    [
        ("sum", lambda scored: shares(map(sum, scored))),
        ("mean", lambda scored: shares(map(mean, scored))),
        ("none", lambda scored: [math.exp(sum(one)) for one in scored]),
    ],
)
def test_json_holds_what_the_plain_model_gives(tiny_server, normalise, probabilities):
    arguments = ("--prompt", "The opposite of hot is", "--options", *OPTIONS, "--normalise", normalise)
    answer = tiny_server.run_json("score", tiny_server.url, *arguments)
    scored = truth(tiny_server.plain, "The opposite of hot is", OPTIONS)
    assert (answer["prompt"], answer["normalise"]) == ("The opposite of hot is", normalise)
    for option, logprobs, found in zip(OPTIONS, scored, answer["options"], strict=True):
        assert (found["option"], found["ids"]) == (option, tiny_server.plain.encode(option))
        assert found["logprobs"] == pytest.approx(logprobs, abs=1e-4)
        assert found["sum"] == pytest.approx(sum(logprobs), abs=1e-3)
        assert found["mean"] == pytest.approx(mean(logprobs), abs=1e-4)
    assert [found["probability"] for found in answer["options"]] == pytest.approx(probabilities(scored), rel=1e-2)


@pytest.mark.slow
@pytest.mark.xdist_group("cog-server")
def test_the_table_has_a_row_for_each_option_in_order(tiny_server):
    result = tiny_server.run("score", tiny_server.url, "--prompt", "Hi", "--options", *OPTIONS)
    header, *rows = result.stdout.decode().splitlines()
    assert header.split() == ["option", "tokens", "sum", "mean", "probability"]
    scored = truth(tiny_server.plain, "Hi", OPTIONS)
    for option, logprobs, share, row in zip(OPTIONS, scored, shares(map(sum, scored)), rows, strict=True):
        name, rest = row[: len(repr(option))], row[len(repr(option)) :].split()
        assert (name, int(rest[0])) == (repr(option), len(option))
        assert [float(figure) for figure in rest[1:3]] == pytest.approx([sum(logprobs), mean(logprobs)], abs=2e-3)
        assert float(rest[3].removesuffix("%")) == pytest.approx(share * 100, abs=0.1)


@pytest.mark.slow
@pytest.mark.xdist_group("cog-server")
def test_on_a_terminal_bars_are_as_long_as_their_shares(tiny_server):
    arguments = ("score", tiny_server.url, "--prompt", "Hi", "--options", " cold", " cold", "x" * 40)
    assert "█" not in tiny_server.run(*arguments).stdout.decode()
    output = tiny_server.run(*arguments, env={"FORCE_COLOR": "1", "COLUMNS": "200"}).stdout.decode()
    assert [line.count("█") for line in output.splitlines()[1:]] == [15, 15, 0]


@pytest.mark.slow
@pytest.mark.xdist_group("cog-server")
def test_ids_are_scored_as_they_are(tiny_server):
    arguments = ("--prompt-ids", "1,2, 3", "--option-ids", "4,5", "6 7 8")
    answer = tiny_server.run_json("score", tiny_server.url, *arguments)
    assert answer["prompt"] == [1, 2, 3]
    for ids, found in zip([[4, 5], [6, 7, 8]], answer["options"], strict=True):
        assert (found["option"], found["ids"]) == (ids, ids)
        assert found["logprobs"] == pytest.approx(tiny_server.plain.score([1, 2, 3], ids), abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--prompt", "a"], "either --options"),
        (["--options", "a"], "either --prompt"),
        (["--prompt", "a", "--prompt-ids", "1", "--options", "b"], "either --prompt"),
        (["--prompt", "a", "--option-ids", "1", "--options", "b"], "either --options"),
        (["--prompt-ids", "one", "--options", "b"], "--prompt-ids is 'one'"),
        (["--prompt", "a", "--option-ids", "1,-2"], "--option-ids is '1,-2'"),
        (["--prompt", "a", "--options", "b", "--normalise", "all"], "--normalise"),
    ],
)
def test_wrong_usage_exits_with_2(project, arguments, words):
    result = project.run("score", "tiny", *arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert words in " ".join(result.stderr.split())


def test_a_server_that_is_not_there_is_said_so(project):
    result = project.run("score", "ws://127.0.0.1:9", "--prompt-ids", "1", "--option-ids", "2", "--json")
    assert (result.returncode, result.stdout) == (1, "")
    assert "127.0.0.1:9" in result.stderr
