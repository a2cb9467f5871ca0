"""What Cog runs. Rendered by Cogsmith; all that varies between two models is in model.json.

Cog reads the signature of `run` from this text without importing it: keep every input one plain literal on one line.
{% if concurrency > 1 %}
`run` is async so that predictions overlap, and returns a plain generator, the only shape that also streams them live.
{% else %}
One prediction runs at a time.
{% endif %}
"""

import cog
from cog import ConcatenateIterator, Input

from cogsmith.predictor.runner import LanguageModel


class Predictor(LanguageModel):
    """The model of this folder, token by token over LMTP, or as text."""

{% if concurrency > 1 %}
    @cog.concurrent(max={{ concurrency }})
    @cog.streaming
    async def run(
{% else %}
    @cog.streaming
    def run(
{% endif %}
        self,
        ops_batch_json: str = Input(default="", description="LMTP: a JSON array of operations"),
        prompt: str = Input(default="", description="Text to continue, where no LMTP batch is given"),
        messages: list[dict] = Input(default=[], description="A chat to answer: objects with role and content"),
        max_tokens: int = Input(default=128, ge=1, description="Most tokens to generate"),
        temperature: float = Input(default=0.0, ge=0.0, description="0 always takes the likeliest token"),
        top_p: float = Input(default=1.0, ge=0.0, le=1.0, description="Sample from the likeliest tokens of this mass"),
        top_k: int = Input(default=0, ge=0, description="Sample from this many likeliest tokens; 0 is all"),
        seed: int = Input(default=-1, description="Seed of the sampling; -1 draws one"),
    ) -> ConcatenateIterator[str]:
        """Stream LMTP lines for `ops_batch_json`, or else text that continues `prompt` or answers `messages`."""
        {{ "return" if concurrency > 1 else "yield from" }} self.stream(
            ops_batch_json=ops_batch_json,
            prompt=prompt,
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            seed=seed,
        )
