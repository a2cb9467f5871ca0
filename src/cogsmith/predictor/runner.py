"""The class that a work directory's `predict.py` derives its predictor from.

`run` itself is written out there, because Cog reads its signature without importing anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cogsmith import manifest
from cogsmith.engine.cache_file import model_of, read
from cogsmith.errors import RequestError
from cogsmith.manifest import ImageTransform
from cogsmith.predictor.images import open_pictures
from cogsmith.predictor.inputs import from_run
from cogsmith.predictor.served import ServedModel, until_cancelled
from cogsmith.predictor.text import stream_text


class LanguageModel(ServedModel):
    """Serves a model that continues text."""

    def setup(self) -> None:
        """Load the checkpoint and start the engine; know the caches that are of this model."""
        super().setup()
        self._cached_model = model_of(self._manifest, manifest.model_args(self._manifest))

    def stream(
        self,
        *,
        ops_batch_json: str = "",
        image: Sequence[Path] | None = None,
        image_transform: ImageTransform | None = None,
        cache: Path | None = None,
        **inputs: Any,
    ) -> Iterator[str]:
        """Answer one prediction: LMTP lines for `ops_batch_json`, else plain text by `inputs.from_run`.

        `image` are the files of the images that the model is to read, if it reads any; `cache` is a file that
        `return_cache` gave. Returns a generator at once, which Cog then reads on a thread of its own. Raises
        RequestError where inputs contradict each other; faults of an LMTP operation come in-band.
        """
        model = self._cached_model
        asked = from_run(**inputs, cache=None if cache is None else read(Path(str(cache)), model))
        if ops_batch_json and asked.is_given:
            raise RequestError("ops_batch_json is given together with a prompt or messages", fix="send one of them")
        transform = image_transform or self._manifest.image_transform
        pictures = open_pictures(image or (), self._images, transform)
        mailbox, meter = self._begin()
        if ops_batch_json:
            chunks = self._lmtp(ops_batch_json, mailbox, meter, pictures)
        else:
            packaged = self._manifest.prompt
            chunks = stream_text(asked, self._engine, self._tokenizer, mailbox, meter, packaged, pictures, model)
        return until_cancelled(chunks)
