"""The gateway as one ASGI application: Replicate's API under "/v1" and without it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount

from cogsmith.gateway import present
from cogsmith.gateway.deployments import Deployments
from cogsmith.gateway.models import Models
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.problems import HANDLERS
from cogsmith.gateway.routes import account
from cogsmith.gateway.routes.deployments import DeploymentRoutes
from cogsmith.gateway.routes.models import ModelRoutes
from cogsmith.gateway.routes.predictions import PredictionRoutes


def create_app(
    models: Models,
    predictions: Predictions,
    *,
    api_routes: Sequence[BaseRoute] = (),
    root_routes: Sequence[BaseRoute] = (),
    resources: Sequence[AbstractAsyncContextManager[Any]] = (),
    dependants: Sequence[AbstractAsyncContextManager[Any]] = (),
) -> Starlette:
    """Put the API together.

    `api_routes` are served beside the API's own, under "/v1" and without it: of the official clients, some write the
    prefix and some do not. `root_routes` are served as they are. While the application runs, `resources` are entered,
    in their order, then `predictions`, then `dependants`, which use these; they are left in reverse.
    """
    deployments = Deployments(models, present.LOCAL_OWNER)
    api = [
        *account.routes(),
        *ModelRoutes(models, predictions).routes(),
        *PredictionRoutes(models, deployments, predictions).routes(),
        *DeploymentRoutes(models, deployments).routes(),
        *api_routes,
    ]

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for resource in [*resources, predictions, *dependants]:
                await stack.enter_async_context(resource)
            yield

    return Starlette(
        routes=[*root_routes, Mount("/v1", routes=api), *api],
        exception_handlers=HANDLERS,
        lifespan=lifespan,
    )
