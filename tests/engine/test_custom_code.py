"""A model's own classes: imported from the work directory, registered, and run as plain transformers runs them."""

import importlib.util
import shutil
import sys

import msgspec
import pytest
import torch
from transformers import AutoConfig, BitsAndBytesConfig

from cogsmith.engine.open import open_engine
from cogsmith.engine.request import GenerateRequest, ScoreRequest
from cogsmith.errors import UserError
from cogsmith.manifest import Code, Limits, Manifest
from cogsmith.quant import Quant

from .models import byte_tokenizer, engine_over, run
from .own_models import FLAT, WINDY, FlatLM, WindyForCausalLM, flat, loud, windy

CLASSES = {
    "windy": Code(
        model_type="windy", config="configuration_windy.WindyConfig", model="modeling_windy.WindyForCausalLM"
    ),
    "flat": Code(model_type="flat", config="flat.FlatConfig", model="flat.FlatLM"),
}
PROMPTS = [tuple(range(1, length)) for length in (40, 3, 17)]


def workdir(root, name, model):
    """A folder with what the engine reads of a work directory."""
    shutil.copytree({"windy": WINDY, "flat": FLAT}[name], root / "model_code")
    model.save_pretrained(root / "checkpoints")
    byte_tokenizer().save_pretrained(root / "checkpoints")
    return root


def opened(root, name="windy", **settings):
    settings = {"code": CLASSES[name], "limits": Limits(max_batch_size=3), **settings}
    manifest = Manifest(name=name, source="path:x", cogsmith="0", **settings)
    return open_engine(manifest, root, {"dtype": "float32"})[:2]


@torch.no_grad()
def plain_logprobs(model, ids):
    """The truth: one pass of the class over the whole text, given nothing but the ids."""
    return torch.log_softmax(model(input_ids=torch.tensor([list(ids)])).logits[0].float(), dim=-1)


def check(model, engine):
    """Ragged texts, three at a time, against plain forward passes of `model`; closes the engine."""
    requests = [*(GenerateRequest(prompt, 12) for prompt in PROMPTS), ScoreRequest(PROMPTS[0], PROMPTS[2])]
    results = run(engine, *requests)
    engine.close()
    for request, events in zip(requests, results, strict=True):
        plain = plain_logprobs(model, [*request.prompt, *(event.token for event in events)])
        for position, event in enumerate(events, start=len(request.prompt)):
            assert event.logprob == pytest.approx(plain[position - 1, event.token].item(), abs=1e-4)


@pytest.mark.parametrize(("name", "make", "runner"), [("windy", windy, "packed"), ("flat", flat, "recompute")])
def test_its_numbers_are_those_of_the_class_run_plainly(tmp_path, name, make, runner):
    model = make()
    path, modules = list(sys.path), set(sys.modules)
    engine, tokenizer = opened(workdir(tmp_path, name, model), name)
    assert tokenizer is not None
    assert engine.info.details["architecture"] == type(model).__name__
    assert engine.info.details["runner"] == runner
    check(model, engine)
    assert sys.path == path
    assert all(added.startswith("cogsmith_model_code_") for added in set(sys.modules) - modules if name in added)


class Hungry(FlatLM):
    """Takes every argument and heeds none: a cache it is given stays empty, padding is text to it."""

    def forward(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        return super().forward(input_ids)


def test_a_class_that_ignores_what_it_is_given_is_not_given_it():
    model = loud(Hungry, flat().config)
    engine = engine_over(model, max_batch_size=3)
    assert engine.info.details["runner"] == "recompute"
    check(model, engine)


@pytest.mark.parametrize("back_ends", [("padded",), ("solo",)])
def test_a_class_whose_config_has_names_of_its_own_keeps_its_cache(back_ends):
    model = windy()
    vars(model.config)["winds"] = vars(model.config).pop("num_hidden_layers")
    engine = engine_over(model, max_batch_size=3, back_ends=back_ends)
    assert engine.info.details["runner"] == back_ends[0]
    check(model, engine)


def test_two_folders_with_the_same_names_do_not_meet(tmp_path):
    """As where `local:` runs two models in one process."""
    first, second = windy(), windy(hidden_size=16)
    roots = [workdir(tmp_path / "a", "windy", first), workdir(tmp_path / "b", "windy", second)]
    layers = roots[1] / "model_code/layers.py"
    layers.write_text(layers.read_text().replace("torch.sin", "torch.cos"))
    engines = [opened(root)[0] for root in roots]
    check(first, engines[0])
    with pytest.raises(AssertionError):
        check(second, engines[1])


def test_what_transformers_has_under_the_same_name_gives_way(tmp_path):
    """A model's author may have written a class for a name that transformers took later."""
    model = windy()
    root = workdir(tmp_path, "windy", model)
    for file in (root / "model_code/configuration_windy.py", root / "checkpoints/config.json"):
        file.write_text(file.read_text().replace('"windy"', '"mpt"'))
    code = msgspec.structs.replace(CLASSES["windy"], model_type="mpt")
    mapping = AutoConfig.for_model("mpt"), "as it was"
    try:
        engine, _ = opened(root, code=code)
        assert engine.info.details["architecture"] == "WindyForCausalLM"
        check(model, engine)
    finally:
        AutoConfig.register("mpt", type(mapping[0]), exist_ok=True)


def test_what_a_class_computes_when_it_is_made_is_not_lost(tmp_path):
    """As many were written before transformers 5, which makes them without memory: a buffer, and a plain tensor."""
    root = workdir(tmp_path, "flat", flat())
    file = root / "model_code/flat.py"
    made = """        self.heads = config.n_heads
        later = torch.ones(config.max_seq_len, config.max_seq_len, dtype=torch.bool).triu(1)
        self.register_buffer("later", later, persistent=False)
        self.register_buffer("scale", torch.tensor(0.3), persistent=False)
        self.steps = torch.linspace(0, 1, config.d_model)
"""
    replaced(file, "        self.heads = config.n_heads\n", made)
    replaced(file, "later = torch.ones(length, length, dtype=torch.bool, device=hidden.device).triu(1)", "")
    replaced(file, "masked_fill(later,", "masked_fill(self.later[:length, :length],")
    replaced(file, "/ key.shape[-1] ** 0.5", "* self.scale")
    replaced(file, "return hidden + self.mlp(hidden)", "return hidden + self.mlp(hidden) * self.steps")
    spec = importlib.util.spec_from_file_location("made_plainly", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    truth = module.FlatLM(module.FlatConfig()).eval()
    truth.load_state_dict(flat().state_dict())
    check(truth, opened(root, "flat")[0])


def replaced(file, old, new):
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("file", "old", "new", "message", "fix"),
    [
        (
            "modeling_windy.py",
            "    config_class = WindyConfig\n",
            "",
            "has no config_class",
            "config_class = WindyConfig",
        ),
        (
            "modeling_windy.py",
            "config_class = WindyConfig",
            "from transformers import GPT2Config as config_class",
            "has config_class GPT2Config",
            "config_class = WindyConfig",
        ),
        (
            "modeling_windy.py",
            "(PreTrainedModel, GenerationMixin)",
            "(nn.Module)",
            "not a PreTrainedModel",
            "derive it",
        ),
        ("modeling_windy.py", "import torch\n", "import torch\nimport nosuchthing\n", "nosuchthing", "requirements = "),
        ("modeling_windy.py", "import torch\n", "import torch\n1 / 0\n", "ZeroDivisionError", "correct the file"),
        ("modeling_windy.py", "import torch\n", "import torch\nexit(0)\n", "SystemExit: 0", "correct the file"),
        ("modeling_windy.py", "class WindyForCausalLM", "class Other", "is not a class", "define the class"),
        ("layers.py", "import torch\n", "import torch\nfrom .gone import x\n", "gone", "correct the file"),
        ("configuration_windy.py", "(PreTrainedConfig)", "", "not a PreTrainedConfig", "derive it"),
        ("configuration_windy.py", '"windy"', '"breezy"', "has model_type 'breezy'", "model_type"),
        ("../checkpoints/config.json", '"windy"', '"breezy"', "has model_type 'breezy'", "model_type of config.json"),
        ("../checkpoints/config.json", "{", "", "config.json cannot be read", "build this folder again"),
        ("modeling_windy.py", "self.lm_head(hidden", "self.lm_heads(hidden", "cannot be run: ", "correct the class"),
        (
            "layers.py",
            "self.gust =",
            "self.squall = nn.Linear(3, 3); self.gust =",
            "the weights lack 6 tensors",
            "belong to the class",
        ),
    ],
)
def test_a_class_that_cannot_be_run_is_refused_at_start(tmp_path, file, old, new, message, fix):
    root = workdir(tmp_path, "windy", windy())
    replaced(root / "model_code" / file, old, new)
    with pytest.raises(UserError) as error:
        opened(root)
    assert message in error.value.message
    assert fix in error.value.fix


def test_the_tokens_that_end_a_text_are_those_of_the_checkpoint(tmp_path):
    """Also for a class without transformers' generate(), for which transformers reads no generation_config.json."""
    root = workdir(tmp_path, "flat", flat())
    (root / "checkpoints/generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    engine, _ = opened(root, "flat")
    engine.close()
    assert engine.info.eos_ids == {7, 9}


def test_files_that_are_gone_are_missed(tmp_path):
    root = workdir(tmp_path, "windy", windy())
    shutil.rmtree(root / "model_code")
    with pytest.raises(UserError, match="holds no Python files"):
        opened(root)


def test_vllm_is_not_asked(tmp_path):
    root = workdir(tmp_path, "windy", windy())
    with pytest.raises(UserError, match="vLLM has model classes of its own"):
        opened(root, engine="vllm")


def test_a_package_of_its_own_with_its_own_beginning(tmp_path):
    """`__init__.py`, a folder below, and a file that is called as a package of everyone's."""
    model = windy()
    root = workdir(tmp_path, "windy", model)
    code = root / "model_code"
    (code / "parts").mkdir()
    (code / "layers.py").rename(code / "parts/torch.py")
    replaced(code / "modeling_windy.py", "from .layers", "from .parts.torch")
    (code / "__init__.py").write_text("from .modeling_windy import WindyForCausalLM\n")
    check(model, opened(root)[0])
    check(model, opened(root, code=msgspec.structs.replace(CLASSES["windy"], model="WindyForCausalLM"))[0])
    for failure in ("RuntimeError", "SystemExit"):
        (code / "__init__.py").write_text(f"raise {failure}('no')\n")
        with pytest.raises(UserError, match=rf"__init__.py cannot be imported: {failure}: no"):
            opened(root)


def test_it_is_quantised_when_it_is_loaded(tmp_path):
    """Against the class quantised by transformers itself, whose 8-bit weights are then spelled out again."""
    pytest.importorskip("bitsandbytes")
    root = workdir(tmp_path, "windy", windy(hidden_size=64))
    engine, _ = opened(root, quant=Quant(bits=8, at="load"))
    settings = BitsAndBytesConfig(load_in_8bit=True)
    truth = WindyForCausalLM.from_pretrained(root / "checkpoints", quantization_config=settings, dtype="float32")
    assert engine.info.details["quantization"] == "bitsandbytes"
    check(truth.eval().dequantize(), engine)
