"""What is about the gateway itself: its account, its hardware, and what only the hosted service has."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from cogsmith.errors import UnknownResource
from cogsmith.gateway import pages, present
from cogsmith.gateway.present import Json
from cogsmith.gateway.routes.resource import refuse, resource


def routes() -> list[BaseRoute]:
    """Account, hardware, collections and trainings."""
    no_training = refuse("A gateway does not train: it serves the work directories it was started with")
    return [
        resource("/account", GET=_account),
        resource("/hardware", GET=_hardware),
        resource("/collections", GET=_nothing),
        resource("/collections/{slug}", GET=_no_such_collection),
        resource("/trainings", GET=_nothing),
        resource("/trainings/{training_id}", GET=_no_such_training),
        resource("/trainings/{training_id}/cancel", POST=_no_such_training),
        resource("/models/{owner}/{name}/versions/{version}/trainings", POST=no_training),
    ]


async def _account(request: Request) -> Response:
    return Json(present.account(present.LOCAL_OWNER))


async def _hardware(request: Request) -> Response:
    return Json([{"name": "This machine", "sku": "local"}])


async def _nothing(request: Request) -> Response:
    return Json(pages.whole([]))


async def _no_such_collection(request: Request) -> Response:
    raise UnknownResource(f"there is no collection {request.path_params['slug']!r} here: a gateway has none")


async def _no_such_training(request: Request) -> Response:
    raise UnknownResource(f"there is no training {request.path_params['training_id']!r} here: a gateway has none")
