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

from cogsmith.predictor.encoder import Encoder


class Predictor(Encoder):
    """The model of this folder: texts into vectors and hidden states, over LMTP or as JSON."""

{% if concurrency > 1 %}
    @cog.concurrent(max={{ concurrency }})
    @cog.streaming
    async def run(
{% else %}
    @cog.streaming
    def run(
{% endif %}
        self,
        texts: list[str] = Input(default=[], description="Texts to encode"),
        text: str = Input(default="", description="One text to encode, instead of texts"),
        layers: list[int] | str = Input(default="last", description="Whose outputs are wanted: last, the last hidden state; all layers; or some by their numbers from 0, such as [0, 5] or 0,5"),
        embedding: bool = Input(default=False, description="Whether the output of the embedding is wanted too"),
        pooling: str = Input(default="", choices=["", "mean", "cls", "last", "max", "none"], description="How the vectors of a text's tokens become one; left empty, as the model was trained; none gives hidden states"),
        normalize: bool | None = Input(default=None, description="Whether vectors are brought to length 1; left out, as the model was trained"),
        padding_side: str = Input(default="", choices=["", "left", "right"], description="Side on which texts are padded to the longest of them; left empty, none is padded unless padding_id is given"),
        padding_id: int | None = Input(default=None, ge=0, description="Token that pads; left out, the model's own"),
        truncate: bool = Input(default=False, description="Whether a text that is too long is cut, else it is refused"),
        output: str = Input(default="json", choices=["json", "npz"], description="Numbers as JSON, or JSON with a file of numpy's arrays as a data URI"),
        ops_batch_json: str = Input(default="", description="For programs: LMTP operations, a JSON array; the answer is LMTP lines"),
    ) -> ConcatenateIterator[str]:
        """Give the vectors or hidden states of texts as one JSON object, or LMTP lines for `ops_batch_json`."""
        {{ "return" if concurrency > 1 else "yield from" }} self.stream(
            texts=texts,
            text=text,
            layers=layers,
            embedding=embedding,
            pooling=pooling,
            normalize=normalize,
            padding_side=padding_side,
            padding_id=padding_id,
            truncate=truncate,
            output=output,
            ops_batch_json=ops_batch_json,
        )
