"""The gateway's things as JSON, in the shapes that Replicate's clients expect."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from cogsmith.gateway.deployments import Deployment
from cogsmith.gateway.models import ServedModel
from cogsmith.gateway.prediction import Prediction

LOCAL_OWNER = "local"
"""Who owns what is served, where a client named no owner."""

NOT_STARTED: dict[str, Any] = {"status": "starting", "started_at": None, "output": None, "logs": ""}
"""What a prediction shows whose caller waited in vain: clients take every other status for the end of the wait, and
would miss later output if they saw the first."""


class Json(Response):
    """A JSON answer."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The content as bytes."""
        return msgspec.json.encode(content)


def base_url(request: Request) -> str:
    """How the caller reaches this gateway: scheme and host of its request."""
    return f"{request.url.scheme}://{request.url.netloc}"


def timestamp(time: datetime) -> str:
    """RFC 3339 in UTC, to the microsecond, as Replicate writes it."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def prediction(prediction: Prediction, base: str) -> dict[str, Any]:
    """A prediction as it is now. Its URLs begin with `base`."""
    shown = {
        "id": prediction.id,
        "model": prediction.model_ref,
        "version": prediction.version,
        "input": prediction.input,
        "output": prediction.output or None,
        "logs": prediction.logs,
        "error": prediction.error,
        "metrics": prediction.metrics,
        "status": prediction.status,
        "created_at": timestamp(prediction.created_at),
        "started_at": _optional(prediction.started_at),
        "completed_at": _optional(prediction.completed_at),
        "data_removed": False,
        "source": "api",
        "urls": _urls(prediction, base),
    }
    if prediction.deadline is not None:
        shown["deadline"] = timestamp(prediction.deadline)
    if prediction.deployment is not None:
        shown["deployment"] = prediction.deployment
    return shown


def model(model: ServedModel, owner: str, base: str, run_count: int) -> dict[str, Any]:
    """A served model under the `owner` its caller named."""
    return {
        "url": f"{base}/v1/models/{owner}/{model.name}",
        "owner": owner,
        "name": model.name,
        "description": model.description,
        "visibility": "private",
        "is_official": False,
        "github_url": None,
        "paper_url": None,
        "license_url": None,
        "cover_image_url": None,
        "run_count": run_count,
        "default_example": None,
        "latest_version": version(model),
    }


def version(model: ServedModel) -> dict[str, Any]:
    """The version of a model that is served: there is one."""
    return {
        "id": model.version,
        "created_at": timestamp(model.created_at),
        "cog_version": model.openapi_schema.get("info", {}).get("version", ""),
        "openapi_schema": model.openapi_schema,
    }


def deployment(deployment: Deployment, owner: str) -> dict[str, Any]:
    """A deployment under the `owner` its caller named."""
    return {
        "owner": owner,
        "name": deployment.name,
        "current_release": {
            "number": deployment.release,
            "model": deployment.model_ref,
            "version": deployment.worker.model.version,
            "created_at": timestamp(deployment.created_at),
            "created_by": account(owner),
            "configuration": {
                "hardware": deployment.hardware,
                "min_instances": deployment.min_instances,
                "max_instances": deployment.max_instances,
            },
        },
    }


def account(username: str) -> dict[str, Any]:
    """Whoever runs this gateway."""
    return {"type": "user", "username": username, "name": username, "github_url": None, "avatar_url": None}


def _urls(prediction: Prediction, base: str) -> dict[str, str]:
    url = f"{base}/v1/predictions/{prediction.id}"
    return {"get": url, "cancel": f"{url}/cancel", "web": url, "stream": f"{base}/v1/stream/{prediction.stream_key}"}


def _optional(time: datetime | None) -> str | None:
    return None if time is None else timestamp(time)
