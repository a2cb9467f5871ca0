"""Decoders that transformers does not have, as their authors would bring them: what `code.path` names in tests."""

from pathlib import Path

import torch

from .flat.flat import FlatConfig, FlatLM
from .windy.modeling_windy import WindyConfig, WindyForCausalLM

WINDY = Path(__file__).parent / "windy"
FLAT = Path(__file__).parent / "flat"


def loud(model_class, config):
    """A random model whose log-probabilities differ by whole units."""
    torch.manual_seed(0)
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
    return model


def windy(**changes):
    """Two files and a helper; attention by transformers' interface."""
    return loud(WindyForCausalLM, WindyConfig(**changes))


def flat(**changes):
    """One file in plain torch, without a cache."""
    return loud(FlatLM, FlatConfig(**changes))
