"""What is settled once, before the first call: what the server is, and whose tokenizer counts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tokenizers import Tokenizer

from cogsmith.client import tokenizer_cache
from cogsmith.client.multiplexer import Multiplexer
from cogsmith.client.once import Once
from cogsmith.client.server import Server
from cogsmith.client.tokenizer import ClientTokenizer, from_files, open_tokenizer
from cogsmith.errors import ProtocolError, StreamBroken, TokenizerMismatch, UnsupportedByServer
from cogsmith.lmtp import AnyOperation, AnyReply, GetTokenizer, Info, ModelInfo, TokenizerFiles

_ATTEMPTS = 3


class Handshake:
    """Asks the server, on first need, what it is and for its tokenizer. `tokenizer` is the caller's, if there is one.

    `num_images` is how many images every prompt is about. Raises EndpointError where that cannot be read.
    """

    def __init__(
        self,
        multiplexer: Multiplexer,
        tokenizer: str | Path | Tokenizer | None,
        model: str | None,
        num_images: int = 0,
    ) -> None:
        self._num_images = num_images
        self._multiplexer = multiplexer
        self._given = None if tokenizer is None else open_tokenizer(tokenizer)
        self._model = model
        self._server = Once(self._settle)
        self._tokenizer = Once(self._settle_tokenizer)

    async def server(self) -> Server:
        """Return what the server says of itself. Raises TokenizerMismatch, and what asking raises."""
        return await self._server.get()

    async def tokenizer(self) -> ClientTokenizer:
        """Return the caller's tokenizer, else the server's. Raises UnsupportedByServer, and what `server` raises."""
        return await self._tokenizer.get()

    async def aclose(self) -> None:
        """Stop asking. Idempotent."""
        await self._tokenizer.aclose()
        await self._server.aclose()

    async def _settle(self) -> Server:
        try:
            reply = await self._ask(ModelInfo(model=self._model, stream_id=0))
        except ProtocolError:
            # LMQL's own server answers with a text instead of an object until its model is loaded.
            return Server()
        if not isinstance(reply, Info):
            raise ProtocolError(f"the server answered MODEL_INFO with {reply}")
        server = Server(reply.model_info)
        self._multiplexer.limits = server.limits
        given = self._given
        if given is not None and server.fingerprint is not None and given.fingerprint != server.fingerprint:
            theirs = await self._fetch(server) if server.can("tokenizer") else None
            raise _mismatch(given, theirs, server)
        if self._num_images and not server.facts.get("image_token"):
            raise UnsupportedByServer("images are given, and the server's model reads none", fix="leave them out")
        return server

    async def _settle_tokenizer(self) -> ClientTokenizer:
        server = await self.server()
        tokenizer = await self._found(server)
        return tokenizer.with_images(server.facts["image_token"], self._num_images) if self._num_images else tokenizer

    async def _found(self, server: Server) -> ClientTokenizer:
        if self._given is not None:
            return self._given
        if (kept := await _kept(server.tokenizer_digest)) is not None:
            return kept
        if not server.can("tokenizer"):
            raise UnsupportedByServer(
                "the server does not send its tokenizer, and text needs one",
                fix="give connect a tokenizer, or the call token ids",
            )
        return await self._fetch(server)

    async def _fetch(self, server: Server) -> ClientTokenizer:
        """Take the server's tokenizer, and keep it for next time."""
        files = await self._ask(GetTokenizer(stream_id=0))
        if not isinstance(files, TokenizerFiles):
            raise ProtocolError(f"the server answered TOKENIZER with a {type(files).__name__}")
        tokenizer = await _read(files)
        await asyncio.to_thread(tokenizer_cache.keep, files)
        return tokenizer

    async def _ask(self, operation: AnyOperation) -> AnyReply:
        """Ask what may be asked again. Raises what the multiplexer raises."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._multiplexer.ask(operation)
            except StreamBroken:
                continue
        return await self._multiplexer.ask(operation)


async def _kept(digest: str | None) -> ClientTokenizer | None:
    """Return the server's tokenizer as it was kept; None where it was not, or is damaged."""
    files = None if digest is None else await asyncio.to_thread(tokenizer_cache.kept, digest)
    return None if files is None else await _read(files)


async def _read(files: TokenizerFiles) -> ClientTokenizer:
    # A large vocabulary takes a second, for which other calls should not wait.
    return await asyncio.to_thread(from_files, files)


def _mismatch(ours: ClientTokenizer, theirs: ClientTokenizer | None, server: Server) -> TokenizerMismatch:
    size = len(theirs.vocabulary) if theirs is not None else server.vocab_size
    message = f"the given tokenizer is not the server's: it has {len(ours.vocabulary)} tokens, the server's {size}"
    if theirs is not None and (difference := _first_difference(ours, theirs)) is not None:
        id_, here, there = difference
        message += f"; id {id_} is {here!r} here and {there!r} there"
    return TokenizerMismatch(message, fix="give the model's own tokenizer, or none to take the server's")


def _first_difference(ours: ClientTokenizer, theirs: ClientTokenizer) -> tuple[int, str | None, str | None] | None:
    """The lowest id that means something else, with both tokens; None stands for no token."""
    here = {id_: token for token, id_ in ours.vocabulary.items()}
    there = {id_: token for token, id_ in theirs.vocabulary.items()}
    different = [id_ for id_ in here.keys() | there.keys() if here.get(id_) != there.get(id_)]
    if not different:
        return None
    id_ = min(different)
    return id_, here.get(id_), there.get(id_)
