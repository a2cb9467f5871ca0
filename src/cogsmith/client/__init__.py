"""Callers of a served model.

    async with connect("replicate:ORG/MODEL") as client:        with connect("localhost:8080") as client:
        stream = client.generate("Once upon a time")                for piece in client.text("Once upon a time"):
        async for token in stream: ...                                  print(piece, end="")

    endpoint.py  connect.py      what an ENDPOINT means; endpoint -> AsyncClient (async with) or Client (with)
    client.py  sync.py           what a caller can ask; the same, blocking, over an event loop in a thread of its own
    options.py  requests.py      a caller's arguments -> an operation, checked
    handshake.py  server.py      asked once: what the server is and can; whose tokenizer counts
    tokenizer.py  prompting.py   text and messages to ids, ids to text; named templates
    lowering.py                  a call in the words that the server understands
    progress.py                  one call on its way, over breaks
    stream.py  results.py        the tokens of one call, of all its branches; what they come to
    text.py                      text over them
    embeddings.py                texts into vectors
    recovery.py                  how a call goes on after a break
    multiplexer.py               operations that come together -> one batch; replies -> streams
    retrying.py                  what is tried again, and when
    transport.py                 one prediction: operations in, text out
    replicate.py  cog_http.py  websocket.py  local.py    a transport each

Nothing here needs torch, transformers or cog, but `local:` endpoints when they are opened.
"""

from __future__ import annotations

from cogsmith.client.client import AsyncClient
from cogsmith.client.connect import Connection, connect
from cogsmith.client.embeddings import Embeddings
from cogsmith.client.results import Branch, Generation, ScoredOption, Token
from cogsmith.client.stream import Stream
from cogsmith.client.sync import Client
from cogsmith.client.transport import Timeouts

__all__ = [
    "AsyncClient",
    "Branch",
    "Client",
    "Connection",
    "Embeddings",
    "Generation",
    "ScoredOption",
    "Stream",
    "Timeouts",
    "Token",
    "connect",
]
