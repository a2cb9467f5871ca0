"""`config.*`, the arguments of `from_pretrained`: the words in it that are other programs', not transformers'."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from cogsmith.config.document import Section
from cogsmith.config.findings import Finding, show
from cogsmith.config.model import MAX_SEQ_LEN
from cogsmith.manifest import AUTOCAST_DTYPE
from cogsmith.quant import SHORT_DTYPES

_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")


def check(section: Section) -> Iterator[Finding]:
    """Yield what is wrong with `config.device`, `config.max_seq_len` and `config.autocast_dtype`."""
    device, length = section.get("config", "device"), section.get("config", MAX_SEQ_LEN)
    if device is not None:
        yield from _device(section, device)
    if length is not None and not (isinstance(length, int) and not isinstance(length, bool) and length > 0):
        yield Finding(
            section.origin("config", MAX_SEQ_LEN),
            f"expected a whole number above 0, got {show(length)}",
            f"write how many tokens a text may have, such as {MAX_SEQ_LEN} = 2048",
        )
    cast = section.get("config", AUTOCAST_DTYPE)
    if cast is not None and cast not in (*SHORT_DTYPES, *SHORT_DTYPES.values()):
        yield Finding(
            section.origin("config", AUTOCAST_DTYPE),
            f"{show(cast)} is no type to compute in",
            f'write "bf16", or remove {AUTOCAST_DTYPE}: numbers are computed in the type of config.dtype then',
        )


def _device(section: Section, device: Any) -> Iterator[Finding]:
    path, device_map = section.origin("config", "device"), section.get("config", "device_map")
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        yield Finding(
            path,
            f"{show(device)} is not a device",
            'write "cpu", "cuda" or "cuda:1", or config.device_map for several',
        )
    elif device_map is not None:
        yield Finding(
            path,
            f"config.device ({show(device)}) and config.device_map ({show(device_map)}) both say where the model goes",
            "keep one of the two",
        )
    elif device != "cpu" and section.get("cog", "gpu") is False:
        yield Finding(
            path,
            f"config.device is {show(device)}, and cog.gpu = false gives the container no GPU",
            "change one of the two",
        )
