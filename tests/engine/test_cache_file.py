"""Files of caches come from anywhere: what is none is refused with its fault."""

import pytest
import torch
from safetensors.torch import save_file

from cogsmith.engine import cache_file
from cogsmith.engine.request import Cache
from cogsmith.errors import RequestError
from cogsmith.manifest import Manifest
from cogsmith.quant import Quant

KEYS = torch.zeros(2, 4, 8)
SOUND = {"layers.0.keys": KEYS, "layers.0.values": KEYS + 1, "token_ids": torch.arange(5)}
SAID = {"format": cache_file.FORMAT, "model": "this"}


def read(tmp_path, tensors, said=SAID):
    save_file(tensors, tmp_path / "cache", said)
    return cache_file.read(tmp_path / "cache", "this")


def test_a_sound_file_is_read(tmp_path):
    cache = read(tmp_path, SOUND)
    assert (cache.tokens, cache.num_tokens) == ((0, 1, 2, 3, 4), 4)
    assert torch.equal(cache.layers[0][1], KEYS + 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"token_ids": None}, "other tensors than"),
        ({"token_ids": torch.arange(3)}, "4 keys for 3 tokens"),
        ({"token_ids": torch.arange(5.0)}, "other tensors than"),
        ({"token_ids": torch.zeros(5, 1, dtype=torch.int64)}, "other tensors than"),
        ({"layers.0.values": None}, "lacks a part: 'layers.0.values'"),
        ({"layers.0.values": torch.zeros(2, 3, 8)}, "other tensors than"),
        ({"layers.0.keys": torch.zeros(3), "layers.0.values": torch.zeros(3)}, "lacks a part"),
        ({"layers.x.keys": KEYS, "layers.x.values": KEYS}, "lacks a part: .*'x'"),
        ({"weight": KEYS}, "other tensors than"),
        ({"layers.0.values": KEYS / 0}, "infinite or undefined"),
        ({name: None for name in SOUND if name != "token_ids"}, "other tensors than"),
    ],
)
def test_what_is_no_cache_is_refused(change, message, tmp_path):
    tensors = {name: tensor for name, tensor in (SOUND | change).items() if tensor is not None}
    with pytest.raises(RequestError, match=message):
        read(tmp_path, {name: tensor.clone() for name, tensor in tensors.items()})


@pytest.mark.parametrize(
    ("said", "message"), [(None, "no file of the format"), (SAID | {"model": "that"}, "of another model")]
)
def test_a_file_says_what_it_is(said, message, tmp_path):
    with pytest.raises(RequestError, match=message):
        read(tmp_path, SOUND, said)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x80\x04."], ids=["empty", "no header", "pickle"])
def test_what_is_no_safetensors_is_refused(content, tmp_path):
    (tmp_path / "cache").write_bytes(content)
    with pytest.raises(RequestError, match="cannot be read"):
        cache_file.read(tmp_path / "cache", "this")


def test_a_cache_that_is_too_large_is_not_sent(monkeypatch):
    monkeypatch.setattr(cache_file, "MOST_BYTES", 500)
    with pytest.raises(RequestError, match="takes 544 bytes, more than 500"):
        cache_file.to_bytes(Cache((1, 2, 3, 4), 4, {0: (KEYS, KEYS)}), "this")


def test_a_model_is_its_source_and_how_it_is_loaded():
    def model(args=None, **settings):
        stated = {"name": "a", "source": "hf:org/a@1", "cogsmith": "1", **settings}
        return cache_file.model_of(Manifest(**stated), args or {})

    assert model() == model(name="b", cogsmith="2")
    others = [model(source="hf:org/a@2"), model({"dtype": "float16"}), model(quant=Quant(bits=4))]
    assert len({model(), *others}) == 4
