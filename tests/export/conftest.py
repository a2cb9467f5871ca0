"""A store to export to."""

from __future__ import annotations

from ..sources.stores.conftest import _nobody, running_s3, s3

__all__ = ["_nobody", "running_s3", "s3"]
