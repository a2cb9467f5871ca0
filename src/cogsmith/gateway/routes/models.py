"""The served models, their versions and their pages."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from cogsmith.errors import UnknownResource
from cogsmith.gateway import pages, present
from cogsmith.gateway.models import Models
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.present import Json
from cogsmith.gateway.routes.resource import refuse, resource
from cogsmith.gateway.worker import Worker

_FIXED = refuse("A gateway serves the work directories it was started with: `./build` makes them")


class ModelRoutes:
    """Answers for `models`, any owner's: on one's own machine every model is one's own."""

    def __init__(self, models: Models, predictions: Predictions) -> None:
        self._models = models
        self._predictions = predictions

    def routes(self) -> list[BaseRoute]:
        """Models, versions and search."""
        model = "/models/{owner}/{name}"
        return [
            resource("/models", GET=self._list, POST=_FIXED, QUERY=self._query),
            resource(model, GET=self._get, PATCH=_FIXED, DELETE=_FIXED),
            resource(f"{model}/versions", GET=self._versions),
            resource(f"{model}/versions/{{version}}", GET=self._version, DELETE=_FIXED),
            resource(f"{model}/readme", GET=self._readme),
            resource(f"{model}/examples", GET=self._examples),
            resource("/search", GET=self._search),
        ]

    async def _list(self, request: Request) -> Response:
        return Json(pages.whole([self._present(request, worker) for worker in self._models.all()]))

    async def _query(self, request: Request) -> Response:
        """A page of models that match, as the body of the method QUERY asks."""
        query = (await request.body()).decode(errors="replace")
        return Json(pages.whole(self._matching(request, query.strip('"'))))  # some clients send it as JSON

    async def _search(self, request: Request) -> Response:
        query = request.query_params.get("query", "")
        found = [{"model": model, "metadata": {}} for model in self._matching(request, query)]
        return Json({"query": query, "models": found, "collections": [], "pages": []})

    async def _get(self, request: Request) -> Response:
        return Json(self._present(request, self._find(request)))

    async def _versions(self, request: Request) -> Response:
        return Json(pages.whole([present.version(self._find(request).model)]))

    async def _version(self, request: Request) -> Response:
        model = self._find(request).model
        # LMQL 0.7.3 writes "/models/$OWNER/NAME/versions/$VERSION", with the dollar signs.
        version = request.path_params["version"].removeprefix("$")
        if version != model.version:
            raise UnknownResource(
                f"{model.name} has no version {version} here", fix=f"use {model.version}, the one that is served"
            )
        return Json(present.version(model))

    async def _readme(self, request: Request) -> Response:
        readme = self._find(request).model.folder / "README.md"
        if not readme.is_file():
            raise UnknownResource(f"{readme.parent.name} has no README.md")
        return PlainTextResponse(readme.read_text(encoding="utf-8"), media_type="text/markdown")

    async def _examples(self, request: Request) -> Response:
        self._find(request)
        return Json(pages.whole([]))

    def _find(self, request: Request) -> Worker:
        return self._models.find(_owner(request), request.path_params["name"])

    def _matching(self, request: Request, query: str) -> list[dict[str, Any]]:
        shown = [self._present(request, worker) for worker in self._models.all()]
        words = query.casefold().split()
        return [model for model in shown if all(word in _searched(model) for word in words)]

    def _present(self, request: Request, worker: Worker) -> dict[str, Any]:
        runs = self._predictions.runs[worker.model.version]
        return present.model(worker.model, _owner(request), present.base_url(request), runs)


def _owner(request: Request) -> str:
    owner: str = request.path_params.get("owner", present.LOCAL_OWNER)
    return owner.removeprefix("$")


def _searched(model: dict[str, Any]) -> str:
    return f"{model['owner']}/{model['name']} {model['description']}".casefold()
