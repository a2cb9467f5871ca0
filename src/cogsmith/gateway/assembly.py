"""What one gateway consists of: the models behind it, the API in front, and the guards before that."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from cogsmith.errors import Problem, ProblemsError, ServeError, UserError
from cogsmith.gateway.access_log import AccessLog
from cogsmith.gateway.app import create_app
from cogsmith.gateway.chaos import Chaos, FaultyAnswers, SlowWorker
from cogsmith.gateway.demo.models import DemoModels
from cogsmith.gateway.demo.routes import PATH, DemoRoutes
from cogsmith.gateway.environment import environment
from cogsmith.gateway.files import FileRoutes, FileStore
from cogsmith.gateway.limits import BodyLimit, Closing, RateLimit, RateLimits, TokenAuth
from cogsmith.gateway.models import Models, ServedModel, describe
from cogsmith.gateway.predictions import PredictionLimits, Predictions
from cogsmith.gateway.webhooks import Webhooks
from cogsmith.gateway.websocket import LmtpRoutes
from cogsmith.gateway.worker import Worker
from cogsmith.manifest import MODEL_ARGS

_TOKEN = re.compile(r"[!-~]+")

Report = Callable[[str], None]
"""Takes one line for the person who started the gateway."""


@dataclass(frozen=True)
class Settings:
    """How to serve. `max_body` is in bytes, `keep` in seconds. Raises ServeError where anybody could come in.

    `model_args` go to `from_pretrained`, laid over a folder's own. Without `cuda` models see no GPU; with
    it they spread over all there are. With `demo` there is a page that shows tokens.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    cuda: bool = False
    token: str | None = None
    lazy: bool = False
    max_queue: int = 2000
    max_body: int = 64 * 2**20
    keep: float = 3600.0
    rate_limits: RateLimits = field(default_factory=RateLimits)
    chaos: Chaos | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    demo: bool = False

    def __post_init__(self) -> None:
        if self.token is None and not _is_loopback(self.host):
            raise ServeError(
                f"{self.host} lets other machines in, and no token is demanded of them",
                fix="give --token TOKEN, or set COGSMITH_TOKEN, to something that cannot be guessed",
            )
        if self.token is not None and not _TOKEN.fullmatch(self.token):
            raise ServeError("the token cannot stand in a header", fix="use letters, digits and signs of ASCII")


@dataclass(frozen=True)
class Assembly:
    """The parts that whoever runs the gateway needs: the application, and what must be told when it ends."""

    app: ASGIApp
    models: Models
    predictions: Predictions
    closing: Closing


def assemble(folders: Sequence[Path], settings: Settings, report: Report) -> Assembly:
    """Put a gateway together that serves the work directories `folders`.

    Raises ProblemsError for folders that cannot be served together, ServeError, MissingExtra and MissingPackages for
    one that cannot be served on this machine.
    """
    models = Models([_worker(model, settings, report) for model in _described(folders, settings)])
    limits = PredictionLimits(waiting=settings.max_queue, kept_seconds=settings.keep)
    files, webhooks = FileStore(), Webhooks()
    predictions = Predictions(limits, files)
    predictions.subscribe(webhooks.notice)
    if settings.chaos is not None:
        predictions.subscribe(settings.chaos.abort_some)
    demo = DemoModels(models, predictions) if settings.demo else None
    pages = DemoRoutes(demo, settings.max_body).routes() if demo else []
    closing = Closing(
        create_app(
            models,
            predictions,
            api_routes=[*FileRoutes(files).routes(), *webhooks.routes()],
            root_routes=[*LmtpRoutes(models, predictions, page=PATH if demo else None).routes(), *pages],
            resources=[_left_clean(models, files), webhooks],
            dependants=[demo] if demo else [],
        )
    )
    return Assembly(_guarded(closing, settings), models, predictions, closing)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Put the guards before `app`. What the last one here wraps is asked first."""
    app = RateLimit(BodyLimit(app, settings.max_body), settings.rate_limits)
    if settings.token is not None:
        app = TokenAuth(app, settings.token, open_folder=PATH if settings.demo else None)
    if settings.chaos is not None:
        app = FaultyAnswers(app, settings.chaos)
    return AccessLog(app)


def _described(folders: Sequence[Path], settings: Settings) -> list[ServedModel]:
    """What is in the folders. Raises ProblemsError with everything that stands against serving them."""
    models = [describe(folder) for folder in folders]
    problems = [
        Problem(
            f"{count} of the models are called {name!r}", "serve them one at a time, or build one under another name"
        )
        for name, count in Counter(model.name for model in models).items()
        if count > 1
    ]
    problems += [problem for model in models if (problem := _deaf_to_model_args(model, settings))]
    if problems:
        raise ProblemsError("what to serve", problems)
    for model in models:
        environment(model.folder)
    return models


def _deaf_to_model_args(model: ServedModel, settings: Settings) -> Problem | None:
    """What is wrong with a folder whose own copy of Cogsmith is too old to heed `model_args`."""
    code = model.folder / "cogsmith" / "manifest.py"
    if not _model_args(settings) or (code.is_file() and MODEL_ARGS in code.read_text(encoding="utf-8")):
        return None
    options = ", ".join(_model_args(settings))
    return Problem(f"{model.folder} was built by an older Cogsmith, which does not heed {options}", "build it again")


def _model_args(settings: Settings) -> dict[str, Any]:
    spread = {"device_map": "auto"} if settings.cuda else {}
    return spread | dict(settings.model_args)


def _worker(model: ServedModel, settings: Settings, report: Report) -> Worker:
    variables = {} if settings.cuda else {"CUDA_VISIBLE_DEVICES": ""}
    if model_args := _model_args(settings):
        variables[MODEL_ARGS] = _to_json(model_args)
    if settings.chaos is not None and settings.chaos.slow:
        return SlowWorker(model, settings.chaos.slow, variables=variables, report=report)
    return Worker(model, variables=variables, report=report)


def _to_json(model_args: Mapping[str, Any]) -> str:
    try:
        return json.dumps(model_args, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the model's arguments cannot be handed to its server: {error}",
            fix='give texts, numbers, lists and tables; a dtype by its name, such as "float16"',
        ) from error


@contextlib.asynccontextmanager
async def _left_clean(models: Models, files: FileStore) -> AsyncIterator[None]:
    """At the end, stop every model and delete every uploaded file."""
    try:
        yield
    finally:
        files.close()
        await asyncio.gather(*(worker.stop() for worker in models.all()))
