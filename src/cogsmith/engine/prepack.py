"""A CPU model's weights in the layout that oneDNN computes with.

torch keeps a weight as it was trained, row by row, and pays for that in each product of a few tokens with it: a
decode step takes 1.2 to 1.6 times as long. The values stay what they are, in as much memory; only a head that is tied
to the embedding is held twice, because tokens are looked up in the other layout.

torch offers the packed product to its own compiler alone: both operators are private, and found in
torch/_inductor/fx_passes/mkldnn_fusion.py. `torch.utils.mkldnn` is public and keeps the plain layout, at no gain.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

_DTYPES = (torch.bfloat16, torch.float32)


class PackedLinear(nn.Module):
    """An `nn.Linear` whose weight is in oneDNN's layout: `weight.to_dense()` is the original, bit by bit.

    A `shared` weight also stays in another module, so it is a buffer here: the model has as many parameters as before.
    """

    def __init__(self, linear: nn.Linear, *, shared: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.bias = linear.bias
        packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach())
        if shared:
            self.register_buffer("weight", packed, persistent=False)
        else:
            self.weight = nn.Parameter(packed, requires_grad=False)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Map `[..., in_features]` to `[..., out_features]`, both in the weight's dtype."""
        out: torch.Tensor = torch.ops.mkldnn._linear_pointwise(states, self.weight, self.bias, "none", [], "")
        return out


def prepack_where_wanted(model: Any, wanted: bool | None) -> None:
    """Pack a model's weights if they are `wanted` so; None means where not a bit of the results changes.

    That is so in bfloat16. In float32 sums come in another order, and differ from plain ones by what float32 rounds.
    A quantised model has little to pack.
    """
    is_quantised = getattr(model, "hf_quantizer", None) is not None
    if wanted or (wanted is None and model.dtype == torch.bfloat16 and not is_quantised):
        prepack(model)


def prepack(model: Any) -> int:
    """Pack the weights of a transformers model's linear layers in place; return how many layers that are.

    Left as they are: layers on a GPU, in float16, quantised, or whose weight the architecture reads itself, as Mamba
    does one of its. 0 where this torch has no oneDNN, and where the model cannot be tried by generating two tokens.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return 0
    layers = _only_called(model, {module for module in model.modules() if _is_plain(module)})
    kept = {id(weight) for module in model.modules() if module not in layers for weight in module._parameters.values()}
    packed: dict[nn.Module, PackedLinear] = {}
    for parent, name in list(_places(model, layers)):
        linear = getattr(parent, name)
        if linear not in packed:
            packed[linear] = PackedLinear(linear, shared=id(linear.weight) in kept)
            # Frees the weight: until the last layer is packed, `layers` and its place in the model hold the module.
            linear.weight = None
        setattr(parent, name, packed[linear])
    return len(packed)


def _is_plain(module: nn.Module) -> bool:
    """Whether `module` is a linear layer of the ordinary kind, on the CPU, that nothing is hooked to."""
    if type(module) is not nn.Linear or hasattr(module, "_hf_hook"):
        return False
    weight = module.weight
    return type(weight.data) is torch.Tensor and weight.device.type == "cpu" and weight.dtype in _DTYPES


def _places(model: nn.Module, layers: set[nn.Module]) -> Iterator[tuple[nn.Module, str]]:
    """Yield each parent of a layer and the layer's name in it; some architectures use a layer in several places."""
    for parent in model.modules():
        for name, child in parent.named_children():
            if child in layers:
                yield parent, name


class _Watched(nn.Linear):
    """A linear layer that notes when anybody else reads its weight. Layers become one by a change of class."""

    def __getattr__(self, name: str) -> Any:
        if name == "weight":
            self.__dict__["is_read"] = True
        return super().__getattr__(name)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        weight = self._parameters["weight"]
        return nn.functional.linear(states, weight, self.bias)  # type: ignore[arg-type]


def _only_called(model: Any, layers: set[nn.Module]) -> set[nn.Module]:
    """Return those layers whose weight nobody reads but they: found out by generating two tokens."""
    for layer in layers:
        layer.__class__ = _Watched
    try:
        ids = torch.arange(8)[None] % model.get_input_embeddings().weight.shape[0]
        model.generate(ids, attention_mask=torch.ones_like(ids), min_new_tokens=2, max_new_tokens=2, pad_token_id=0)
    except Exception:  # an architecture of its own kind: served as it is
        return set()
    finally:
        for layer in layers:
            layer.__class__ = nn.Linear
    return {layer for layer in layers if not layer.__dict__.pop("is_read", False)}
