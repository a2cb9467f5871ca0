"""What reading a checkpoint of PyTorch costs in memory: from a file or a sharded folder to safetensors, cast to bf16.

    python benchmarks/importing.py [--megabytes 640] [--folder FOLDER]

Each way runs in a process of its own. "Own" memory is what only that process has (anonymous pages) beyond what it had
after importing torch; "mapped" counts pages of files too, which the system takes back when it needs them. Linux only.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed.checkpoint

from cogsmith.sources.torchfile import load
from cogsmith.sources.torchfile.distributed import load_sharded
from cogsmith.sources.write_safetensors import LazyTensor, write_checkpoint

TENSOR_MEGABYTES = 16
_LOOK_SECONDS = 0.002


def cogsmith(tensors: Mapping[str, torch.Tensor], out: Path) -> None:
    write_checkpoint(out, [cast(name, tensor) for name, tensor in tensors.items()])


def cast(name: str, tensor: torch.Tensor) -> LazyTensor:
    return LazyTensor(name, torch.bfloat16, tuple(tensor.shape), lambda: tensor.to(torch.bfloat16))


def from_file(folder: Path, out: Path) -> None:
    cogsmith(load(folder / "whole.pt"), out)


def from_shards(folder: Path, out: Path) -> None:
    places = {path.name: path for path in (folder / "sharded").iterdir()}
    cogsmith(load_sharded(places), out)


def by_the_libraries(folder: Path, out: Path) -> None:
    from safetensors.torch import save_file

    loaded = torch.load(folder / "whole.pt", weights_only=True)
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in loaded.items()}, out / "model.safetensors")


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "a file": from_file,
    "a sharded folder": from_shards,
    "a file, by torch.load and safetensors": by_the_libraries,
}


def memory(kind: str) -> int:
    """Return bytes that the process holds now: "RssAnon" its own, "VmRSS" with mapped files'."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))


@contextmanager
def watched(peaks: list[int]) -> Iterator[None]:
    """Put the most anonymous memory that there was meanwhile at the end of `peaks`."""
    done = threading.Event()

    def watch() -> None:
        most = 0
        while not done.wait(_LOOK_SECONDS):
            most = max(most, memory("RssAnon"))
        peaks.append(most)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def measure(way: str, folder: Path) -> None:
    """Go one way, and write what it took as JSON."""
    own, whole, peaks = memory("RssAnon"), memory("VmRSS"), list[int]()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as out, watched(peaks):
        WAYS[way](folder, Path(out))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    took = {"own": peaks[0] - own, "whole": most - whole, "seconds": time.perf_counter() - started}
    sys.stdout.write(json.dumps(took))


def prepare(folder: Path, megabytes: int) -> None:
    """Write the same fp32 tensors as one file and as a sharded folder."""
    warnings.simplefilter("ignore")
    numbers = TENSOR_MEGABYTES * 2**20 // 4
    tensors = {f"layer.{i}": torch.randn(2048, numbers // 2048) for i in range(megabytes // TENSOR_MEGABYTES)}
    torch.save(tensors, folder / "whole.pt")
    torch.distributed.checkpoint.save(tensors, checkpoint_id=folder / "sharded", no_dist=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=640)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        return measure(options.way, options.folder)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        prepare_elsewhere = [sys.executable, "-c", _PREPARE, folder, str(options.megabytes)]
        subprocess.run(prepare_elsewhere, check=True, cwd=Path(__file__).parent)
        sys.stdout.write(f"| from, {options.megabytes} MB | own, MB | with mapped, MB | s |\n|---|---|---|---|\n")
        for way in WAYS:
            command = [sys.executable, __file__, "--way", way, "--folder", folder]
            took = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            own, whole = took["own"] / 2**20, took["whole"] / 2**20
            sys.stdout.write(f"| {way} | {own:,.0f} | {whole:,.0f} | {took['seconds']:.1f} |\n")
    return None


_PREPARE = "import importing, pathlib, sys; importing.prepare(pathlib.Path(sys.argv[1]), int(sys.argv[2]))"

if __name__ == "__main__":
    main()
