"""Makes data/: tiny checkpoints written by LLaMA2-Accessory itself, with what it computes from them.

    python make_fixtures.py CHECKOUT DESTINATION

CHECKOUT is a copy of github.com/Alpha-VLLM/LLaMA2-Accessory; fairscale==0.4.13, einops and sentencepiece must be
installed. Its model code runs unchanged on gloo processes; its visual encoder, and the CUDA kernels of its sparse
Mixtral, which this file replaces by plain matrix products, are all that is missing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F

PROMPT = "the cat sat on a mat and then"
GREEDY = 12
TEXTS = [
    "the cat sat on the mat and the dog sat on the log",
    "a quick brown fox and a lazy dog ran over the hill at noon",
    "then the old man and the sea met on a cold grey morning",
    "cats and dogs and men and mats and logs, said the fox; why not?",
] * 8
SMALL = {"dim": 16, "n_layers": 2, "n_heads": 4, "multiple_of": 8}
MIXTRAL = {"dim": 16, "hidden_dim": 24, "head_dim": 4, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2}
FALCON = {"num_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "bias": False, "parallel_attn": True}
SPARSE = {"n_layers": 1, "hidden_dim": 64}
MOE = {"moe": {"num_experts": 4, "num_experts_per_tok": 2}}
LLAMA = {**SMALL, "n_kv_heads": 2, "ffn_dim_multiplier": 1.3, "rope_theta": 5000.0, "rope_scaling": 0.25}
# name: llama_type, its arguments, shards, precision, tokenizer
CASES = {
    "llama": ("llama", LLAMA, 2, torch.float16, "bytes"),
    "llama_hf": ("llama", SMALL, 1, torch.bfloat16, "hf"),
    "llama_peft": ("llama_peft", {**SMALL, "n_kv_heads": 2, "lora_rank": 3}, 2, torch.float16, "spm"),
    "internlm": (
        "internlm",
        {"num_layers": 2, "hidden_size": 16, "num_attention_heads": 4, "multiple_of": 8},
        1,
        torch.float16,
        "spm",
    ),
    "falcon": ("falcon", {**FALCON, "new_decoder_architecture": False, "multi_query": True}, 2, torch.float32, "spm"),
    "falcon_new": (
        "falcon",
        {**FALCON, "new_decoder_architecture": True, "multi_query": True, "num_kv_heads": 1, "bias": True},
        1,
        torch.float16,
        "spm",
    ),
    "mixtral": ("mixtral", {**MIXTRAL, **MOE}, 2, torch.float16, "spm"),
    "mixtral_sparse": ("mixtral_sparse", {**MIXTRAL, **MOE, **SPARSE}, 2, torch.float16, "spm"),
    "meta": ("llama", {**SMALL, "n_kv_heads": 2}, 2, torch.float16, "spm"),
    "tuned": ("llama_peft", {**SMALL, "n_kv_heads": 2, "lora_rank": 2}, 2, torch.float16, "spm"),
}


def main() -> None:
    """Make every case: written at its own number of shards, computed from at one."""
    checkout, destination = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    if len(sys.argv) > 3:
        _worker(checkout, destination, *sys.argv[3:])
        return
    work = Path(tempfile.mkdtemp())
    _tokenizers(work)
    for case, (_, _, shards, *_) in CASES.items():
        _spawn(checkout, destination, work, f"write:{case}", shards)
    _to_meta(destination / "meta")
    _delta(checkout, destination)
    for case in [*CASES, "delta"]:
        _spawn(checkout, destination, work, f"compute:{case}", 1)
    shutil.rmtree(destination / "merged")


def _spawn(checkout: Path, destination: Path, work: Path, task: str, size: int) -> None:
    store = tempfile.mktemp()
    command = [sys.executable, __file__, str(checkout), str(destination), str(work), task, store, str(size)]
    running = [subprocess.Popen([*command, str(rank)]) for rank in range(size)]
    if any(process.wait() for process in running):
        raise SystemExit(f"{task} failed")


def _worker(checkout: Path, destination: Path, work: str, task: str, store: str, size: str, rank: str) -> None:
    torch.set_num_threads(1)
    sys.path.insert(0, str(checkout))
    for name in ("open_clip", "stk", "megablocks", "megablocks.ops"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["stk"].Matrix = None  # type: ignore[attr-defined]
    sys.modules["megablocks"].ops = sys.modules["megablocks.ops"]  # type: ignore[attr-defined]
    # torch has dropped what the program calls to set a default type.
    torch.Tensor.cuda = lambda self, *_: self  # type: ignore[method-assign]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(size))
    from fairscale.nn.model_parallel import initialize as fs_init

    fs_init.initialize_model_parallel(int(size))
    from accessory.model.LLM import mixtral_sparse

    mixtral_sparse.MoE.forward = _sparse_forward
    step, _, case = task.partition(":")
    folder = destination / case
    (_write if step == "write" else _compute)(folder, case, Path(work))


def _sparse_forward(self: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """mixtral_sparse's MoE.forward with its block-sparse products (sdd, then dsd) written out for every expert."""
    flat = x.reshape(-1, x.shape[-1])
    weights, chosen = torch.topk(F.softmax(self.gate(flat), dim=1, dtype=torch.float), self.num_experts_per_tok, dim=-1)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    w1, w2, w3 = (w.view(self.num_experts, -1, self.dim) for w in (self.w1, self.w2, self.w3))
    out = torch.zeros_like(flat)
    for expert in range(self.num_experts):
        share = (weights * (chosen == expert)).sum(dim=-1, keepdim=True)
        out = out + share * ((F.silu(flat @ w1[expert].t()) * (flat @ w3[expert].t())) @ w2[expert])
    return out.view_as(x)


def _write(folder: Path, case: str, work: Path) -> None:
    """Save as accessory.util.misc.save_checkpoint does, in its words."""
    from accessory.model.meta import MetaModel
    from accessory.util import tensor_parallel
    from accessory.util.tensor_type import default_tensor_type

    kind, arguments, size, dtype, tokenizer = CASES[case]
    rank = dist.get_rank()
    config = work / f"{case}.{rank}.json"
    config.write_text(json.dumps(arguments))
    with default_tensor_type(dtype=torch.float32, device="cpu"):
        model = MetaModel(kind, [str(config)], str(work / _TOKENIZERS[tokenizer]), max_seq_len=64)
    split = tensor_parallel.get_weight_parallel_dim(model)
    for name, parameter in model.named_parameters():
        own = name in split or getattr(parameter, "is_model_parallel", False)
        _randomise(name, parameter, f"{case} {name} {rank if own else ''}")
    folder.mkdir(parents=True, exist_ok=True)
    state = {"model": {key: value.to(dtype) for key, value in model.state_dict().items()}}
    torch.save(state, folder / f"consolidated.{rank:02d}-of-{size:02d}.model.pth")
    if rank == 0:
        model.tokenizer.save(str(folder))
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(model.llma.args), indent=2))
        (folder / "meta.json").write_text(json.dumps({"llama_type": model.llama_type}, indent=2))


def _randomise(name: str, parameter: torch.nn.Parameter, seed: str) -> None:
    number = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "little")
    generator = torch.Generator().manual_seed(number)
    with torch.no_grad():
        values = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name or ".ln_" in name
        # Wide enough that every weight, and the place of every weight, shows in the logits.
        parameter.copy_(1 + values * 0.3 if is_norm and name.endswith("weight") else values * 0.5)


def _compute(folder: Path, case: str, work: Path) -> None:
    """Load with the program's own from_pretrained, on one process; keep its logits and its greedy continuation."""
    from accessory.model.meta import MetaModel
    from safetensors.torch import save_file

    paths, options = [str(folder)], {}
    if case == "meta":
        options = {"llama_type": "llama", "llama_config": [str(folder / "params.json")]}
        options["tokenizer_path"] = str(folder / "tokenizer.model")
    if case == "delta":
        # Its loader of differences lacks an argument; the result of its own `apply` is what is loaded here.
        paths = [str(folder.with_name("merged"))]
    model = MetaModel.from_pretrained(paths, dtype=torch.float32, device="cpu", max_seq_len=64, **options)
    ids = model.tokenizer.encode(PROMPT, bos=True, eos=False)
    with torch.inference_mode():
        output = model.llma(torch.tensor([ids]))
        logits = output[0] if isinstance(output, tuple) else output
        greedy = list(ids)
        for _ in range(GREEDY):
            answer = model.llma(torch.tensor([greedy]))
            answer = answer[0] if isinstance(answer, tuple) else answer
            greedy.append(int(answer[0, -1].argmax()))
        text = model.generate([PROMPT], max_gen_len=GREEDY)[0]
    save_file({"logits": logits[0].contiguous().float()}, folder / "expected.safetensors")
    (folder / "expected.safetensors").chmod(0o644)
    expected = {"prompt": PROMPT, "ids": ids, "greedy": greedy[len(ids) :], "generate": text}
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def _to_meta(folder: Path) -> None:
    """Give the case the names and the layout of Meta's own release."""
    for rank in range(2):
        written = folder / f"consolidated.{rank:02d}-of-02.model.pth"
        state = torch.load(written, weights_only=True)["model"]
        renamed = {key.removeprefix("llma."): value for key, value in state.items()}
        renamed["rope.freqs"] = 1.0 / 10000.0 ** (torch.arange(0, 4, 2) / 4)
        torch.save(renamed, folder / f"consolidated.{rank:02d}.pth")
        written.unlink()
    params = {"dim": 16, "multiple_of": 8, "n_heads": 4, "n_kv_heads": 2, "n_layers": 2, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps({**params, "vocab_size": -1}))
    (folder / "config.json").unlink()
    (folder / "meta.json").unlink()


def _delta(checkout: Path, destination: Path) -> None:
    """Run the program's weight_operate.py: tuned minus meta, and put together again."""
    tool = str(checkout / "accessory/tools/weight_operate.py")
    delta, merged = destination / "delta", destination / "merged"
    for kind, changed, out in (("extract", destination / "tuned", delta), ("apply", delta, merged)):
        options = ["--pretrained_path", str(destination / "meta"), "--delta_path", str(changed)]
        command = [sys.executable, tool, *options, "--output_path", str(out), "--operate_type", kind]
        subprocess.run(command, check=True)
        for name in ("config.json", "meta.json", "tokenizer.model"):
            (out / name).write_bytes((destination / "tuned" / name).read_bytes())


_TOKENIZERS = {"spm": "small.model", "bytes": "bytes.model", "hf": "hf"}


def _tokenizers(work: Path) -> None:
    import sentencepiece
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    text = work / "text.txt"
    text.write_text("\n".join(TEXTS))
    for name, size, fallback in (("small", 64, False), ("bytes", 320, True)):
        options = {"vocab_size": size, "byte_fallback": fallback, "normalization_rule_name": "identity"}
        options |= {"remove_extra_whitespaces": False, "model_type": "bpe", "character_coverage": 1.0}
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_prefix=str(work / name), **options)
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>"]
    bpe.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=72, special_tokens=special, show_progress=False))
    (work / "hf").mkdir()
    bpe.save(str(work / "hf/tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": special[0]}
    (work / "hf/tokenizer_config.json").write_text(json.dumps(config))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
