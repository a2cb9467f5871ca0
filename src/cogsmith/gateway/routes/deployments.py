"""Deployments: names for the served models, as a program written for the hosted service makes and uses them."""

from __future__ import annotations

import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from cogsmith.gateway import pages, present
from cogsmith.gateway.deployments import Deployment, Deployments
from cogsmith.gateway.inputs import check_body
from cogsmith.gateway.models import Models
from cogsmith.gateway.present import Json
from cogsmith.gateway.problems import HTTPProblem, InvalidField, invalid, not_here
from cogsmith.gateway.routes.bodies import read_object
from cogsmith.gateway.routes.references import resolve
from cogsmith.gateway.routes.resource import resource

_NAME = re.compile(r"[a-z0-9]+([._-]+[a-z0-9]+)*")
_SETTINGS: dict[str, Any] = {
    "hardware": {"type": "string"},
    "min_instances": {"type": "integer", "minimum": 0},
    "max_instances": {"type": "integer", "minimum": 0},
}
_CHANGES: dict[str, Any] = {"properties": {"version": {"type": "string"}, **_SETTINGS}}
_BODY: dict[str, Any] = {
    "properties": {"name": {"type": "string"}, "model": {"type": "string"}, **_CHANGES["properties"]},
    "required": ["name", "model", "version", *_SETTINGS],
}


class DeploymentRoutes:
    """Answers for `deployments` of `models`."""

    def __init__(self, models: Models, deployments: Deployments) -> None:
        self._models = models
        self._deployments = deployments

    def routes(self) -> list[BaseRoute]:
        """Deployments; their predictions are among the predictions' routes."""
        return [
            resource("/deployments", GET=self._list, POST=self._create),
            resource("/deployments/{owner}/{name}", GET=self._get, PATCH=self._update, DELETE=self._delete),
        ]

    async def _list(self, request: Request) -> Response:
        return Json(pages.whole([_present(request, deployment) for deployment in self._deployments.all()]))

    async def _create(self, request: Request) -> Response:
        body = await read_object(request)
        faults = check_body(_BODY, body)
        name = body.get("name")
        if isinstance(name, str) and not _NAME.fullmatch(name):
            faults.append(InvalidField("pattern", "name", f"Does not match pattern '{_NAME.pattern}'"))
        if faults:
            raise invalid(faults)
        if self._deployments.has(body["name"]):
            raise HTTPProblem(409, "Conflict", f"There is a deployment {body['name']!r} already")
        worker, model_ref = resolve(self._models, f"{body['model']}:{body['version']}")
        settings = {key: body[key] for key in _SETTINGS}
        deployment = Deployment(body["name"], worker, model_ref, **settings)
        self._deployments.make(deployment)
        return Json(_present(request, deployment), 201)

    async def _get(self, request: Request) -> Response:
        return Json(_present(request, self._deployments.find(request.path_params["name"])))

    async def _update(self, request: Request) -> Response:
        deployment = self._own(request)
        body = await read_object(request)
        if faults := check_body(_CHANGES, body):
            raise invalid(faults)
        changes = {key: value for key, value in body.items() if key in _SETTINGS}
        if "version" in body:
            changes["worker"], _ = resolve(self._models, f"{deployment.model_ref}:{body['version']}")
        return Json(_present(request, self._deployments.update(deployment.name, changes)))

    async def _delete(self, request: Request) -> Response:
        self._deployments.remove(self._own(request).name)
        return Response(status_code=204)

    def _own(self, request: Request) -> Deployment:
        """The deployment that the request would change."""
        deployment = self._deployments.find(request.path_params["name"])
        if self._deployments.is_given(deployment.name):
            raise not_here(f"{deployment.name} stands for the served model of this name: make a deployment of your own")
        return deployment


def _present(request: Request, deployment: Deployment) -> dict[str, Any]:
    owner = request.path_params.get("owner", present.LOCAL_OWNER).removeprefix("$")
    return present.deployment(deployment, owner)
