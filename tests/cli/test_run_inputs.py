"""Inputs as words of a command line, and the files of an answer."""

import base64
import json

import pytest

from cogsmith.cli import answer_files
from cogsmith.cli.run_inputs import from_words
from cogsmith.errors import UserError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "predict.py").write_text(
        """
import cog
from cog import Input


class Predictor(cog.BaseRunner):
    def run(
        self,
        prompt: str = Input(default=""),
        stop: list[str] | None = Input(default=None),
        count: int = Input(default=1),
        top_p: float = Input(default=1.0),
        warm: bool = Input(default=False),
        bias: dict = Input(default={}),
        image: list[cog.Path] = Input(default=[]),
        cache: cog.Path | None = Input(default=None),
    ) -> str:
        return ""
"""
    )
    return tmp_path


def uri(content):
    return "data:application/octet-stream;base64," + base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("words", "inputs"),
    [
        (["prompt=a = b"], {"prompt": "a = b"}),
        (["prompt=12", "count=12", "top_p=1", "warm=true"], {"prompt": "12", "count": 12, "top_p": 1, "warm": True}),
        (["stop=a", 'stop=["["]'], {"stop": ["a", "["]}),
        (["stop=a", 'stop=["b", "c"]'], {"stop": ["a", "b", "c"]}),
        (['bias={"1": 2.5}'], {"bias": {"1": 2.5}}),
        (["cache=https://example.org/c", "prompt="], {"cache": "https://example.org/c", "prompt": ""}),
    ],
)
def test_words_become_inputs_by_their_types(folder, words, inputs):
    assert from_words(folder, words) == inputs


def test_files_are_sent_as_data_and_texts_of_files_as_texts(folder):
    (folder / "a").write_bytes(b"\xff\x00")
    (folder / "b").write_text("Grüße\n", encoding="utf-8")
    words = [f"image=@{folder}/a", f"image=@{folder}/b", f"cache=@{folder}/a", f"prompt=@{folder}/b"]
    files = [uri(b"\xff\x00"), uri("Grüße\n".encode())]
    assert from_words(folder, words) == {"image": files, "cache": files[0], "prompt": "Grüße\n"}


def test_every_word_without_a_meaning_is_named(folder):
    words = ["promt=a", "count=1.5", "warm=1", "top_p=true", "bias=[1]", "prompt", "cache=a", "cache=b", "image=@/no"]
    with pytest.raises(UserError) as refused:
        from_words(folder, words)
    lines = refused.value.message.splitlines()
    assert lines == [
        "this model has no input 'promt'; did you mean 'prompt'?",
        "count=1.5 is no int",
        "warm=1 is no bool",
        "top_p=true is no int or float",
        "bias=[1] is no dict",
        "'prompt' has no value",
        "cache is given twice",
        "/no cannot be read: No such file or directory",
    ]


def test_files_of_an_answer_are_written(tmp_path):
    answer = {"text": "a", "npz": uri(b"12"), "cache": uri(b"34"), "shapes": {}}
    said = json.loads(answer_files.save(json.dumps(answer), tmp_path / "new"))
    assert said == answer | {
        "npz": str(tmp_path / "new" / "arrays.npz"),
        "cache": str(tmp_path / "new" / "cache.safetensors"),
    }
    assert (tmp_path / "new" / "arrays.npz").read_bytes() == b"12"
    answer_files.save(json.dumps([{"text": "a"}, {"cache": uri(b"5")}]), tmp_path)
    assert (tmp_path / "1.cache.safetensors").read_bytes() == b"5"


def test_a_cut_file_of_an_answer_is_refused_and_nothing_written(tmp_path):
    with pytest.raises(UserError, match="the file cache in the answer cannot be read: it is cut"):
        answer_files.save(json.dumps({"cache": uri(b"some bytes")[:-2]}), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("answer", ["text", "[1]", '{"text": "a"}', '"a"', '{"npz": 3}'])
def test_an_answer_without_files_stays_as_it_is(answer, tmp_path):
    assert answer_files.save(answer, tmp_path / "new") == answer
    assert not (tmp_path / "new").exists()
