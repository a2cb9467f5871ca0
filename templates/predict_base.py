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

from {{ module }} import {{ parent }}


class Predictor({{ parent }}):
    """{% block about %}{% endblock %}"""

{% if concurrency > 1 %}
    @cog.concurrent(max={{ concurrency }})
    @cog.streaming
    async def run(
{% else %}
    @cog.streaming
    def run(
{% endif %}
        self,
{% block inputs %}
{% endblock %}
        ops_batch_json: str = Input(default="", description="For programs: LMTP operations, a JSON array; the answer is LMTP lines"),
    ) -> ConcatenateIterator[str]:
        """{% block answer %}{% endblock %}"""
        {{ "return" if concurrency > 1 else "yield from" }} self.stream(
{% block values %}
{% endblock %}
            ops_batch_json=ops_batch_json,
        )
