"""The formats that are converted. Adding one is adding its module, and a line here."""

from __future__ import annotations

from cogsmith.sources.accessory import AccessoryImporter
from cogsmith.sources.composer import ComposerImporter
from cogsmith.sources.importer import Importer

_IMPORTERS: tuple[Importer, ...] = (
    ComposerImporter(),
    AccessoryImporter(),
)
"""In the order in which they are asked whether they recognise a source."""


def importers() -> dict[str, Importer]:
    """Return the importers by their names."""
    return {importer.name: importer for importer in _IMPORTERS}
