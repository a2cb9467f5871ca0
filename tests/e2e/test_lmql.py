"""LMQL 0.7.3, its code untouched, against the gateway over SmolLM2: as `replicate:` model and over the WebSocket.

The truth of each query is plain transformers under the same constraint, which is applied by hand.
"""

import json
import math
import os
import signal
import threading

import httpx2
import pytest

from . import gateway as gateways
from .clients import environments, peer

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("smollm2")]

DIGITS = "0123456789"
CHAT = "<|im_start|>user\nWhat is 2+2? Answer with a number.<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def smollm2_gateway(smollm2, tmp_path_factory):
    with gateways.running(smollm2, log=tmp_path_factory.mktemp("gateway") / "log") as running:
        yield running


@pytest.fixture(scope="module")
def connect(smollm2, smollm2_gateway, client_environments, tmp_path_factory):
    """Starts LMQL with an endpoint: `with connect("replicate:org/model") as lmql: lmql.call("query", code=...)`."""
    variables = {
        "GATEWAY_URL": smollm2_gateway.url,
        "REPLICATE_API_TOKEN": "r8_any",
        "MODEL": "smollm2-135m",
        "TOKENIZER": str(smollm2 / "checkpoints"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(tmp_path_factory.mktemp("home")),  # LMQL keeps tokenizers there, by path
    }
    python = environments.python("lmql-0.7.3", client_environments)

    def connect(endpoint):
        return peer.running(python, "run_lmql.py", variables={**variables, "ENDPOINT": endpoint})

    return connect


@pytest.fixture(scope="module", params=["replicate", "websocket"])
def endpoint(request, smollm2_gateway):
    address = smollm2_gateway.url.removeprefix("http://").replace("127.0.0.1", "localhost")
    return "replicate:anyone/smollm2-135m" if request.param == "replicate" else address


@pytest.fixture(scope="module")
def lmql(connect, endpoint):
    with connect(endpoint) as running:
        yield running


def run(lmql, code):
    (result,) = lmql.call("query", code=code)
    return result


def first_tokens(plain, options):
    """The constraint `X in options`: while nothing has come, only the options' first tokens may."""
    starts = [plain.encode(option)[0] for option in options]
    return lambda text: None if text else starts


def ids_where(plain, accepts):
    """The ids whose own text `accepts`, in the whole vocabulary."""
    return [id_ for id_ in range(len(plain.tokenizer)) if accepts(plain.decode([id_]))]


def test_stops_at_and_a_bound_of_tokens(lmql, plain_smollm2):
    code = '"The capital of France is[X]" where STOPS_AT(X, ".") and len(TOKENS(X)) < 12'
    expected = plain_smollm2.greedy_text("The capital of France is", 11, stop=".")
    assert expected.endswith(".")
    assert run(lmql, code)["variables"] == {"X": expected}


def test_stops_before(lmql, plain_smollm2):
    code = '"A list of fruit:\\n-[X]\\nthe end" where STOPS_BEFORE(X, "\\n") and len(TOKENS(X)) < 10'
    expected = plain_smollm2.greedy_text("A list of fruit:\n-", 9, stop="\n").removesuffix("\n")
    assert run(lmql, code)["text"] == f"A list of fruit:\n-{expected}\nthe end"


def test_a_number_of_tokens(lmql, plain_smollm2):
    code = '"Once upon a time[X]" where len(TOKENS(X)) == 20'
    assert run(lmql, code)["variables"] == {"X": plain_smollm2.greedy_text("Once upon a time", 20, min_tokens=20)}


@pytest.mark.parametrize("chunksize", [1, 3, 64])
def test_the_size_of_chunks_changes_nothing(lmql, plain_smollm2, chunksize):
    code = f'argmax(chunksize={chunksize}) "Once upon a time[X]" where len(TOKENS(X)) < 14'
    assert run(lmql, code)["variables"] == {"X": plain_smollm2.greedy_text("Once upon a time", 13)}


def test_a_choice(lmql, plain_smollm2):
    options = [" blue", " cold", " warm"]
    code = f'"The opposite of hot is[X]" where X in {options}'
    expected = plain_smollm2.greedy_text("The opposite of hot is", 1, allowed=first_tokens(plain_smollm2, options))
    assert run(lmql, code)["variables"] == {"X": expected}


def test_a_distribution_is_the_softmax_of_mean_logprobs(lmql, plain_smollm2):
    options = [" cold", " warm and nice", " blue"]
    code = f"""
argmax
    "Hot and cold are[WHAT]. The opposite of hot is[X]" where len(TOKENS(WHAT)) < 5
distribution
    X in {options}
"""
    story = "Hot and cold are"
    story += plain_smollm2.greedy_text(story, 4) + ". The opposite of hot is"
    prompt = [plain_smollm2.bos, *plain_smollm2.encode(story)]
    scores = [plain_smollm2.score(prompt, plain_smollm2.encode(option)) for option in options]
    weights = [math.exp(sum(logprobs) / len(logprobs)) for logprobs in scores]
    probabilities = [weight / sum(weights) for weight in weights]
    result = run(lmql, code)
    assert result["variables"]["X"] == options[probabilities.index(max(probabilities))]
    assert result["distributions"] == {
        "X": [[o, pytest.approx(p, abs=1e-5)] for o, p in zip(options, probabilities, strict=True)]
    }


def test_an_integer(lmql, plain_smollm2):
    code = '"World War II ended in the year [X]" where INT(X) and len(TOKENS(X)) < 5'
    digits = plain_smollm2.encode(DIGITS)
    expected = plain_smollm2.greedy_text("World War II ended in the year ", 4, allowed=lambda text: digits)
    assert run(lmql, code)["variables"] == {"X": int(expected)}


def test_a_regular_expression(lmql, plain_smollm2):
    code = '"The train leaves at [X]" where REGEX(X, r"[0-9]{2}:[0-9]{2}")'
    digits, colon = plain_smollm2.encode(DIGITS), plain_smollm2.encode(":")
    expected = plain_smollm2.greedy_text(
        "The train leaves at ", 5, allowed=lambda text: colon if len(text) == 2 else digits
    )
    assert run(lmql, code)["variables"] == {"X": expected}


def test_a_mask_over_half_the_vocabulary(lmql, plain_smollm2):
    """LMQL sends such a mask as some 400 kB of JSON."""
    code = '"Once upon a time[X]" where not "e" in X and len(TOKENS(X)) < 6'
    without = ids_where(plain_smollm2, lambda text: "e" not in text)
    assert 10_000 < len(without) < 40_000
    expected = plain_smollm2.greedy_text("Once upon a time", 5, allowed=lambda text: without)
    assert run(lmql, code)["variables"] == {"X": expected}


def test_several_variables_in_a_loop(lmql, plain_smollm2):
    code = """
"A list of fruit:\\n"
found = []
for i in range(3):
    "-[FRUIT]" where STOPS_AT(FRUIT, "\\n") and len(TOKENS(FRUIT)) < 8
    found.append(FRUIT)
"The best is[BEST]" where len(TOKENS(BEST)) < 4
"""
    story = "A list of fruit:\n"
    for _ in range(3):
        story += "-"
        story += plain_smollm2.greedy_text(story, 7, stop="\n")
    story += "The best is"
    story += plain_smollm2.greedy_text(story, 3)
    assert run(lmql, code)["text"] == story


def test_forced_text_and_what_follows_it(lmql, plain_smollm2):
    code = '"Hello[X] and[Y]" where X == " dear friend" and len(TOKENS(Y)) < 7'
    expected = plain_smollm2.greedy_text("Hello dear friend and", 6)
    assert run(lmql, code)["variables"] == {"X": " dear friend", "Y": expected}


def test_a_prompt_that_is_not_ascii(lmql, plain_smollm2):
    prompt = "Ø 12.5 µm, « taraudé », 😀 π, 日本語: "
    code = f'"{prompt}[X]" where len(TOKENS(X)) < 16'
    assert run(lmql, code)["text"] == prompt + plain_smollm2.greedy_text(prompt, 15)


def test_no_prompt(lmql, plain_smollm2):
    assert run(lmql, '"[X]" where len(TOKENS(X)) < 8')["text"] == plain_smollm2.greedy_text("", 7)


def test_the_end_token_ends_the_text(lmql, plain_smollm2):
    prompt = plain_smollm2.encode(CHAT)
    expected = plain_smollm2.greedy(prompt, 40)
    assert 4 < len(expected) < 40
    assert run(lmql, f"{json.dumps(CHAT + '[X]')}")["variables"] == {"X": plain_smollm2.decode(expected)}


def test_the_end_token_can_be_put_off(lmql, plain_smollm2):
    prompt = plain_smollm2.encode(CHAT)
    natural = len(plain_smollm2.greedy(prompt, 40))
    code = f"{json.dumps(CHAT + '[X]')} where len(TOKENS(X)) > {natural + 3} and len(TOKENS(X)) < {natural + 6}"
    expected = plain_smollm2.greedy(prompt, natural + 5, min_tokens=natural + 4)
    assert run(lmql, code)["variables"] == {"X": plain_smollm2.decode(expected)}


def test_samples(lmql, plain_smollm2):
    """With top_k = 1 a sample is the likeliest token at any temperature; without it, samples of noise differ."""
    expected = plain_smollm2.greedy_text("Once upon a time", 8)
    code = 'sample(temperature=1.5, n=2, top_k=1) "Once upon a time[X]" where len(TOKENS(X)) < 9'
    assert [result["variables"]["X"] for result in lmql.call("query", code=code)] == [expected] * 2
    code = 'sample(temperature=5.0, n=3) "Once upon a time[X]" where len(TOKENS(X)) < 9'
    texts = {result["variables"]["X"] for result in lmql.call("query", code=code)}
    assert len(texts) == 3


def test_beams(lmql, plain_smollm2):
    code = 'beam(n=2) "The weather today is[X]" where len(TOKENS(X)) < 6'
    prompt = [plain_smollm2.bos, *plain_smollm2.encode("The weather today is")]
    expected = {plain_smollm2.decode(ids) for ids in plain_smollm2.beams(prompt, 2, 5)}
    assert {result["variables"]["X"] for result in lmql.call("query", code=code)} == expected


def test_scores(lmql, plain_smollm2):
    options = [" World", " Apples and other fruit", " Oranges"]
    prompt = [plain_smollm2.bos, *plain_smollm2.encode("Hello")]
    scores = lmql.call("score", prompt="Hello", options=options)
    for logprobs, option in zip(scores, options, strict=True):
        assert logprobs == pytest.approx(plain_smollm2.score(prompt, plain_smollm2.encode(option)), abs=1e-4)


def test_the_models_own_generate(lmql, plain_smollm2):
    expected = plain_smollm2.greedy_text("Hello, my name is", 10)
    assert lmql.call("generate", prompt="Hello, my name is", max_tokens=10) == expected


def test_queries_at_once_over_one_model(lmql, plain_smollm2):
    """LMQL numbers the streams of each query from 1."""
    options = [" alpha", " beta", " gamma"]
    prompts = [f"Word {i}: pick one:" for i in range(6)]
    code = '"{prompt}[X]\\nNow:[Y]" where X in {options} and len(TOKENS(Y)) < 6'
    codes = [code.replace("{prompt}", prompt).replace("{options}", str(options)) for prompt in prompts]
    for prompt, (result,) in zip(prompts, lmql.call("queries_at_once", codes=codes), strict=True):
        story = prompt + plain_smollm2.greedy_text(prompt, 1, allowed=first_tokens(plain_smollm2, options)) + "\nNow:"
        assert result["text"] == story + plain_smollm2.greedy_text(story, 5)


def test_a_trace_holds_what_the_server_says_of_its_model(lmql, plain_smollm2):
    (event,) = lmql.call("traced_generations", code='"Hello[X]" where len(TOKENS(X)) < 4')
    info = event["model"]
    assert info["vocab_size"] == len(plain_smollm2.tokenizer)
    assert info["eos_ids"] == [plain_smollm2.eos]
    assert info["parameters"] == plain_smollm2.model.num_parameters()
    assert event["kwargs"]["ids"] == [plain_smollm2.bos, *plain_smollm2.encode("Hello")]


def test_an_error_reaches_the_user(lmql):
    with pytest.raises(peer.PeerError, match=r"LMTPStreamError: the prompt has 8202 tokens .* context of 8192"):
        run(lmql, f'argmax(max_len=10_000) "{"one " * 8200}[X]" where len(TOKENS(X)) < 4')


def test_a_pinned_version(connect, smollm2_gateway, plain_smollm2):
    """LMQL writes a literal `$` before the owner and the version that it looks up."""
    version = httpx2.get(f"{smollm2_gateway.url}/v1/models/org/smollm2-135m").json()["latest_version"]["id"]
    with connect(f"replicate:org/smollm2-135m/{version}") as lmql:
        assert run(lmql, '"Hello[X]" where len(TOKENS(X)) < 4')["variables"] == {
            "X": plain_smollm2.greedy_text("Hello", 3)
        }


@pytest.mark.parametrize("seconds", [0.3, 1.5])
def test_a_model_killed_mid_query_costs_time_and_no_token(lmql, smollm2_gateway, plain_smollm2, seconds):
    prompt = "Once upon a time, there was a"
    run(lmql, '"Ready?[X]" where len(TOKENS(X)) < 2')
    killer = threading.Timer(seconds, lambda: os.kill(smollm2_gateway.workers()[0], signal.SIGKILL))
    killer.start()
    variables = run(lmql, f'"{prompt}[X]" where len(TOKENS(X)) < 60')["variables"]
    assert killer.finished.is_set()
    assert variables == {"X": plain_smollm2.greedy_text(prompt, 59)}
