"""Makes the checkpoints in fixtures/ with the programs themselves, and beside each what the original model said.

Not run by the tests: the programs want environments of their own. Two are needed, each with torch 2.13.0,
transformers 4.57.6, sentencepiece, einops, omegaconf, and Composer installed with --no-deps plus its small needs
(mosaicml-cli<0.8, torchmetrics, torch-optimizer, coolname, tabulate, psutil, py-cpuinfo; yahp for the older):

    mosaicml==0.32.1, peft      the newest: file names in full, no metrics, torch.distributed.checkpoint
    mosaicml==0.13.5            of spring 2023: stems for file names, metrics, classes of its own in the pickle

    python make_fixtures.py fixtures --examples CHECKOUT --foundry UNPACKED

CHECKOUT is github.com/mosaicml/examples at v0.0.4, where MosaicGPT is from; UNPACKED the wheel of llm-foundry 0.1.0,
the first with MPT. Neither is changed or kept. Each environment makes the cases of its Composer.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import os
import shutil
import sys
import tempfile
import types
from pathlib import Path

from originals import SIZE, bert, bpe, gpt2, llama, lora, mosaic_gpt, mpt, sentencepiece, stir, wordpiece

TEXTS = (
    "The quick brown fox can't jump over 13 lazy dogs.",
    "  two  spaces,\tand a tab\nnew line ",
    "Größe naïve 中文",
    "",
)
ROWS = [[5, 77, 130, 9, 201, 44, 3, 60, 61, 62], [250, 4, 19, 88, 7, 7, 100, 31, 240, 12]]
LOGITS = 5
NEW_TOKENS = 8


class StandIn(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Holds any name and none that works: Composer imports torchvision for its image models."""

    def __init__(self, *names):
        self.names = names

    def find_spec(self, name, path=None, target=None):
        if any(name == mine or name.startswith(f"{mine}.") for mine in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        class Anything(types.ModuleType):
            __path__ = ()

            def __getattr__(self, name):
                if name.startswith("__"):
                    raise AttributeError(name)
                return type(name, (), {})

        return Anything(spec.name)

    def exec_module(self, module):
        module.__version__ = "0"


def patch_environment():
    """Give an old Composer the torch names that moved since."""
    prefix_lm = ["llmfoundry.models.utils.hf_prefixlm_converter", "examples.llm.src.models.utils.hf_prefixlm_converter"]
    sys.meta_path.insert(0, StandIn("torchvision", *prefix_lm))
    import torch.amp.grad_scaler as here
    import torch.cuda.amp.grad_scaler as there

    for name in ("_refresh_per_optimizer_state", "OptState", "_MultiDeviceReplicator"):
        if not hasattr(there, name):
            setattr(there, name, getattr(here, name))
    from composer import metrics

    for name in ("InContextLearningLMExpectedCalibrationError", "InContextLearningMCExpectedCalibrationError",
                 "InContextLearningQAAccuracy"):  # fmt: skip
        if not hasattr(metrics, name):
            setattr(metrics, name, type(name, (), {}))


def add_packages(root, *names):
    """Make packages importable without what their __init__.py asks for, such as data sets."""
    for name in names:
        package = types.ModuleType(name)
        package.__path__ = [str(Path(root).resolve().joinpath(*name.split(".")))]
        sys.modules[name] = package


def record(model, tokenizer, path):
    """Write the original's last logits, [batch, LOGITS, vocabulary], and greedy ids beside the checkpoint."""
    import torch
    from safetensors.torch import save_file

    model = model.eval()
    ids = torch.tensor(ROWS[1:])[:, :8]
    with torch.inference_mode():
        mask = torch.ones_like(ids).bool()
        logits = model(input_ids=ids, attention_mask=mask).logits[:, -LOGITS:].float()
        greedy = ids
        for _ in range(NEW_TOKENS):
            last = model(input_ids=greedy, attention_mask=torch.ones_like(greedy).bool()).logits[:, -1]
            greedy = torch.cat([greedy, last.argmax(-1, keepdim=True)], 1)
    save_file({"ids": ids, "logits": logits.contiguous(), "greedy": greedy}, f"{path}.expected.safetensors")
    if tokenizer is not None:
        read = {text: tokenizer(text)["input_ids"] for text in TEXTS}
        Path(f"{path}.ids.json").write_text(json.dumps(read, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")


def trainable():
    """HuggingFaceModel with a loss of its own: the oldest models know no labels."""
    from composer.models import HuggingFaceModel
    from torch.nn.functional import cross_entropy

    class Trainable(HuggingFaceModel):
        def forward(self, batch):
            return self.model(input_ids=batch["input_ids"])

        def loss(self, outputs, batch):
            return cross_entropy(outputs.logits[0, :-1], batch["labels"][0, 1:])

        def update_metric(self, batch, outputs, metric):
            # The older Composer hands over logits, and has taken the labels out of the batch.
            labels = batch.get("labels", getattr(self, "labels", None))
            metric.update(getattr(outputs, "logits", outputs), labels)

    return Trainable


def run(name, model, tokenizer, *, full=False, adam=False, filename="ep{epoch}-ba{batch}-rank{rank}.pt", **options):
    """Train two steps with Composer's Trainer, which saves into the folder `name`; record what then comes out."""
    import torch
    from composer import Trainer
    from torch.utils.data import DataLoader

    shutil.rmtree(name, ignore_errors=True)
    wrapped = trainable()(stir(model), tokenizer=tokenizer, use_logits=True, **options)
    rows = [{"input_ids": torch.tensor(row), "labels": torch.tensor(row)} for row in ROWS]
    trained = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    Trainer(
        model=wrapped,
        train_dataloader=DataLoader(rows, batch_size=1),
        max_duration="2ba",
        device="cpu",
        optimizers=(torch.optim.Adam if adam else torch.optim.SGD)(trained, lr=1e-2),
        save_folder=name,
        save_filename=filename,
        save_latest_filename="latest-rank{rank}.pt" if full else None,
        save_interval="2ba",
        save_weights_only=not full,
        progress_bar=False,
        run_name="fixture",
    ).fit()
    record(wrapped.model, tokenizer, name)
    return wrapped


def remove_links(name):
    """Remove the link to the latest that the Trainer made: the tests make their own."""
    for link in [path for path in Path(name).iterdir() if path.is_symlink()]:
        link.unlink()


def newest_cases():
    """Composer 0.32.1."""
    run("gpt2_full", gpt2(), bpe(), full=True, adam=True)
    remove_links("gpt2_full")
    wrapped = run("gpt2_weights_only", gpt2(), bpe())
    save_in_parts(wrapped, "gpt2_weights_only")
    run("gpt2_tar", gpt2(), bpe(), filename="ep{epoch}-ba{batch}-rank{rank}.tar.gz")
    run("gpt2_no_tokenizer", gpt2(), None)
    run("llama_spm", llama(vocab_size=320), sentencepiece(fast=False))
    run("llama_fast", llama(vocab_size=320, tie_word_embeddings=True), sentencepiece(fast=True))
    run("bert", bert(), wordpiece())
    fold = {"should_save_peft_only": False}
    settings = {"use_rslora": True, "alpha_pattern": {"v_proj": 3}, "rank_pattern": {"down_proj": 3}}
    targets = ["q_proj", "v_proj", "down_proj", "embed_tokens"]
    adapted = lora(llama(vocab_size=320, tie_word_embeddings=True), target_modules=targets, **settings)
    run("lora", adapted, sentencepiece(fast=True), **fold)
    settings = {"fan_in_fan_out": True, "lora_bias": True, "modules_to_save": ["ln_f"]}
    run("lora_gpt2", lora(gpt2(), target_modules=["c_attn", "c_proj"], **settings), bpe(), **fold)
    run("lora_only", lora(gpt2(), target_modules=["c_attn"], fan_in_fan_out=True), bpe())


def save_in_parts(wrapped, name):
    """The same model as FSDP saves it, which needs a GPU, and as composer.checkpoint does."""
    import torch
    import torch.distributed.checkpoint as dcp
    from composer.checkpoint.save import save_composer_metadata_to_disk, save_model_to_disk

    shutil.rmtree("gpt2_newest", ignore_errors=True)
    state = torch.load(next(Path(name).glob("ep*.pt")), weights_only=False)
    with tempfile.TemporaryDirectory() as folder:
        # An entry for each piece of the vocabulary, a kilobyte each: kept packed.
        dcp.save(state, storage_writer=dcp.FileSystemWriter(f"{folder}/ep0-ba2"), no_dist=True)
        shutil.make_archive("gpt2_sharded", "xztar", folder)
    save_model_to_disk(wrapped, "gpt2_newest/ep0-ba2/model/model.pt")
    save_composer_metadata_to_disk("gpt2_newest/ep0-ba2/composer_metadata.json", wrapped)


def old_cases():
    """Composer 0.13.5, which says what the model is only where it saves all."""
    from composer.metrics.nlp import LanguageCrossEntropy

    metrics = [LanguageCrossEntropy(vocab_size=SIZE["vocab_size"])]
    run("old_gpt2_full", gpt2(), bpe(), full=True, adam=True, metrics=metrics)
    remove_links("old_gpt2_full")
    models = {
        "old_llama_fast": lambda: (llama(vocab_size=320), sentencepiece(fast=True)),
        "old_bert": lambda: (bert(), wordpiece()),
        "mosaic_gpt": lambda: (mosaic_gpt(), bpe()),
        "mosaic_gpt_alibi": lambda: (mosaic_gpt(alibi=True, no_bias=True), bpe()),
        "mpt": lambda: (mpt(alibi=True, clip_qkv=2.0), bpe()),
        "mpt_learned_positions": lambda: (mpt(alibi=False), bpe()),
    }
    for name, make in models.items():
        run(name, *make(), full=True)
        remove_links(name)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--examples", required=True)
    arguments.add_argument("--foundry", required=True)
    options = arguments.parse_args()
    patch_environment()
    add_packages(options.foundry, "llmfoundry", "llmfoundry.models")
    add_packages(options.examples, "examples", "examples.llm", "examples.llm.src", "examples.llm.src.models")
    import composer
    import torch

    torch.manual_seed(7)
    options.folder.mkdir(exist_ok=True)
    os.chdir(options.folder)
    newest_cases() if composer.__version__ > "0.2" else old_cases()


if __name__ == "__main__":
    main()
