"""Creating predictions and asking after them."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from cogsmith.gateway import pages, present
from cogsmith.gateway.deployments import Deployments
from cogsmith.gateway.inputs import check_body, check_input
from cogsmith.gateway.models import Models
from cogsmith.gateway.prediction import Prediction
from cogsmith.gateway.predictions import Predictions
from cogsmith.gateway.present import Json
from cogsmith.gateway.problems import HTTPProblem, InvalidField, invalid
from cogsmith.gateway.routes.bodies import deadline, read_object, wait_seconds
from cogsmith.gateway.routes.prediction_body import BODY, VERSIONED_BODY, webhook, webhook_faults
from cogsmith.gateway.routes.references import resolve
from cogsmith.gateway.routes.resource import resource
from cogsmith.gateway.streams import stream
from cogsmith.gateway.worker import Worker


class PredictionRoutes:
    """Answers for `predictions` of `models`."""

    def __init__(self, models: Models, deployments: Deployments, predictions: Predictions) -> None:
        self._models = models
        self._deployments = deployments
        self._predictions = predictions

    def routes(self) -> list[BaseRoute]:
        """Predictions, by version, by model and by deployment, and their streams."""
        return [
            resource("/predictions", GET=self._list, POST=self._create),
            resource("/models/{owner}/{name}/predictions", POST=self._create_by_model),
            resource("/deployments/{owner}/{name}/predictions", POST=self._create_by_deployment),
            resource("/predictions/{prediction_id}", GET=self._get),
            resource("/predictions/{prediction_id}/cancel", POST=self._cancel),
            resource("/stream/{key}", GET=self._stream),
        ]

    async def _create(self, request: Request) -> Response:
        body = await read_object(request)
        faults = check_body(VERSIONED_BODY, body)
        if not isinstance(body.get("version"), str):
            raise invalid(faults)
        worker, model_ref = resolve(self._models, body["version"])
        return await self._start(request, worker, model_ref, body, faults)

    async def _create_by_model(self, request: Request) -> Response:
        owner, name = request.path_params["owner"].removeprefix("$"), request.path_params["name"]
        worker = self._models.find(owner, name)
        body = await read_object(request)
        return await self._start(request, worker, f"{owner}/{name}", body, check_body(BODY, body))

    async def _create_by_deployment(self, request: Request) -> Response:
        owner, name = request.path_params["owner"].removeprefix("$"), request.path_params["name"]
        deployment = self._deployments.find(name)
        body = await read_object(request)
        faults = check_body(BODY, body)
        return await self._start(
            request, deployment.worker, deployment.model_ref, body, faults, deployment=f"{owner}/{name}"
        )

    async def _start(
        self,
        request: Request,
        worker: Worker,
        model_ref: str,
        body: dict[str, Any],
        faults: list[InvalidField],
        deployment: str | None = None,
    ) -> Response:
        """Create the prediction that `body` asks for, unless that has `faults` or its input has."""
        inputs = body.get("input")
        if isinstance(inputs, dict):
            faults = faults + check_input(worker.model.openapi_schema, inputs)
        if faults := faults + webhook_faults(body):
            raise invalid(faults)
        prediction = self._predictions.create(
            worker,
            body["input"],
            model_ref=model_ref,
            deployment=deployment,
            webhook=webhook(body, present.base_url(request)),
            deadline=deadline(request.headers),
        )
        return await _created(request, prediction)

    async def _list(self, request: Request) -> Response:
        after, before = (_time(request, name) for name in ("created_after", "created_before"))
        found = (
            prediction
            for prediction in self._predictions.newest_first()
            if (after is None or prediction.created_at >= after) and (before is None or prediction.created_at < before)
        )
        base = present.base_url(request)
        return Json(
            pages.page(
                request,
                found,
                number=lambda prediction: prediction.number,
                present=lambda prediction: present.prediction(prediction, base),
            )
        )

    async def _get(self, request: Request) -> Response:
        prediction = self._predictions.get(request.path_params["prediction_id"])
        return Json(present.prediction(prediction, present.base_url(request)))

    async def _cancel(self, request: Request) -> Response:
        prediction = self._predictions.cancel(request.path_params["prediction_id"])
        return Json(present.prediction(prediction, present.base_url(request)))

    async def _stream(self, request: Request) -> Response:
        prediction = self._predictions.by_stream_key(request.path_params["key"])
        return stream(prediction, request.headers.get("last-event-id"))


async def _created(request: Request, prediction: Prediction) -> Response:
    """Answer with the new prediction: at once, or when it has ended or its caller has waited long enough."""
    seconds = wait_seconds(request.headers)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(prediction.wait(), seconds)
    shown = present.prediction(prediction, present.base_url(request))
    in_vain = not prediction.ended
    if in_vain:
        shown |= present.NOT_STARTED
    return Json(shown, 202 if seconds and in_vain else 201, {"Location": shown["urls"]["get"]})


def _time(request: Request, name: str) -> datetime | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise HTTPProblem(
            400, "Bad request", f"{name}={text!r} is no time: write it as 2026-11-20T12:00:00Z"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
