"""CUDA graphs without a GPU: what torch documents of them, on any device.

A recording notes every operation with the tensors that it read and wrote. A replay runs them again over the same
tensors, so that only what was copied into the inputs is new, and results land where the recorded ones were. What the
host would have to wait for is refused, as a recording refuses it.
"""

from contextlib import contextmanager, nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_flatten


class RecordedGraph:
    """Stands for `torch.cuda.CUDAGraph`."""

    def __init__(self):
        self.calls = []
        self.replays = 0

    def note(self, function, args, kwargs, result):
        self.calls.append((function, args, kwargs, result))

    def replay(self):
        self.replays += 1
        for function, args, kwargs, result in self.calls:
            for old, new in zip(tree_flatten(result)[0], tree_flatten(function(*args, **kwargs))[0], strict=True):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class _Recording(TorchDispatchMode):
    def __init__(self, graph):
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the host waits for the device while a graph is recorded")
        result = function(*args, **(kwargs or {}))
        self.graph.note(function, args, kwargs or {}, result)
        return result


def install(monkeypatch, kernel):
    """Put stand-ins in place of torch's graphs and streams; `kernel` is one operation. Returns `(graphs, kernel)`."""
    graphs = []

    @contextmanager
    def record(graph):
        graphs.append(graph)
        with _Recording(graph):
            yield

    def whole_kernel(*args, **kwargs):
        recording = next((mode for mode in _modes() if isinstance(mode, _Recording)), None)
        with _disable_current_modes():
            result = kernel(*args, **kwargs)
        if recording is not None:
            recording.graph.note(kernel, args, kwargs, result)
        return result

    class Stream:
        def __init__(self, *device):
            pass

        def wait_stream(self, other):
            pass

    monkeypatch.setattr("torch.cuda.CUDAGraph", RecordedGraph)
    monkeypatch.setattr("torch.cuda.graph", record)
    monkeypatch.setattr("torch.cuda.Stream", Stream)
    monkeypatch.setattr("torch.cuda.stream", nullcontext)
    monkeypatch.setattr("torch.cuda.current_stream", Stream)
    return graphs, whole_kernel


def _modes():
    from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

    return _get_current_dispatch_mode_stack()
