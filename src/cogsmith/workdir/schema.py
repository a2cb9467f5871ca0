"""`.cog/openapi_schema.json`: the document that Cog derives from a `run` signature.

With it the work directory serves without Docker: the runtime validates inputs by it, and streams events only if it
says `x-cog-streaming`. The format is OpenAPI 3.0.2 in the shape of Cog 0.23's own generator.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cogsmith.workdir.cog_types import JsonSchema
from cogsmith.workdir.input_call import RunInput
from cogsmith.workdir.signature import RunSignature

FILE_NAME = ".cog/openapi_schema.json"


def to_json(document: Mapping[str, Any]) -> bytes:
    """Return the file's bytes."""
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode()


def document(signature: RunSignature, version: str) -> JsonSchema:
    """Return the OpenAPI document of `signature`; `version` is Cog's, which says who wrote the document."""
    return {
        "openapi": "3.0.2",
        "info": {"title": "Cog", "version": version},
        "paths": _paths(signature.streaming),
        "components": {"schemas": _components(signature)},
    }


def _components(signature: RunSignature) -> JsonSchema:
    return {
        "Input": _input(signature.inputs),
        "Output": dict(signature.output) | {"title": "Output"},
        **{item.name: _choices(item) for item in signature.inputs if item.choices},
        "PredictionRequest": _object("PredictionRequest", id=_text("Id"), input=_reference("Input")),
        "PredictionResponse": _prediction_response(),
        "Status": {
            "title": "Status",
            "description": "An enumeration.",
            "enum": ["starting", "processing", "succeeded", "canceled", "failed"],
            "type": "string",
        },
        "HTTPValidationError": _object(
            "HTTPValidationError",
            detail={"title": "Detail", "type": "array", "items": _reference("ValidationError")},
        ),
        "ValidationError": _validation_error(),
    }


def _input(inputs: tuple[RunInput, ...]) -> JsonSchema:
    properties = {item.name: _property(item, order) for order, item in enumerate(inputs)}
    required = [item.name for item in inputs if _is_required(item)]
    schema = {"title": "Input", "type": "object", "properties": properties}
    return schema | ({"required": required} if required else {})


def _property(item: RunInput, order: int) -> JsonSchema:
    if item.choices:
        schema: JsonSchema = {"allOf": [_reference(item.name)]}
        schema |= {"nullable": True} if item.type.get("nullable") else {}
    else:
        schema = {"title": _title(item.name), **item.type}
    if _has_effective_default(item):
        schema["default"] = _number(item.default)
        if item.default is None:
            schema["nullable"] = True
    return schema | {key: _number(value) for key, value in item.keywords.items()} | {"x-order": order}


def _has_effective_default(item: RunInput) -> bool:
    """A default of None means "none given" to Cog, save where None is a value: an optional or a secret."""
    accepts_none = item.type.get("nullable") or item.type.get("x-cog-secret")
    return item.has_default and (item.default is not None or bool(accepts_none))


def _is_required(item: RunInput) -> bool:
    optional = item.type.get("nullable") and "anyOf" not in item.type
    return not _has_effective_default(item) and not optional


def _choices(item: RunInput) -> JsonSchema:
    kind = item.type.get("type", "object")
    return {"title": item.name, "description": "An enumeration.", "enum": list(item.choices), "type": kind}


def _number(value: Any) -> Any:
    """Write 1.0 as 1, as Go does."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _title(name: str) -> str:
    return " ".join(part[:1].upper() + part[1:] for part in name.split("_"))


def _object(title: str, **properties: JsonSchema) -> JsonSchema:
    return {"title": title, "type": "object", "properties": properties}


def _text(title: str) -> JsonSchema:
    return {"title": title, "type": "string"}


def _time(title: str) -> JsonSchema:
    return {"title": title, "type": "string", "format": "date-time"}


def _reference(name: str) -> JsonSchema:
    return {"$ref": f"#/components/schemas/{name}"}


def _prediction_response() -> JsonSchema:
    return _object(
        "PredictionResponse",
        input=_reference("Input"),
        output=_reference("Output"),
        id=_text("Id"),
        version=_text("Version"),
        created_at=_time("Created At"),
        started_at=_time("Started At"),
        completed_at=_time("Completed At"),
        status=_text("Status"),
        error=_text("Error"),
        logs=_text("Logs"),
        metrics={"title": "Metrics", "type": "object"},
    )


def _validation_error() -> JsonSchema:
    place = {"title": "Location", "type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}}
    schema = _object("ValidationError", loc=place, msg=_text("Message"), type=_text("Error Type"))
    return schema | {"required": ["loc", "msg", "type"]}


def _paths(streaming: bool) -> JsonSchema:
    prediction: JsonSchema = {
        "summary": "Predict",
        "description": "Run a single prediction on the model",
        "operationId": "predict_predictions_post",
        "requestBody": {"content": _json_content(_reference("PredictionRequest"))},
        "responses": _responses(_reference("PredictionResponse"), validated=True),
    }
    if streaming:
        prediction["x-cog-streaming"] = True
    return {
        "/": _get("Root", "root__get"),
        "/health-check": _get("Healthcheck", "healthcheck_health_check_get"),
        "/predictions": {"post": prediction},
        "/predictions/{prediction_id}/cancel": {"post": _cancel()},
    }


def _get(summary: str, operation: str) -> JsonSchema:
    return {"get": {"summary": summary, "operationId": operation, "responses": _responses({})}}


def _cancel() -> JsonSchema:
    name = "prediction_id"
    return {
        "summary": "Cancel",
        "operationId": "cancel_predictions__prediction_id__cancel_post",
        "parameters": [{"in": "path", "name": name, "required": True, "schema": _text(_title(name))}],
        "responses": _responses({}, validated=True),
    }


def _json_content(schema: JsonSchema) -> JsonSchema:
    return {"application/json": {"schema": schema}}


def _responses(schema: JsonSchema, *, validated: bool = False) -> JsonSchema:
    responses = {"200": {"description": "Successful Response", "content": _json_content(schema)}}
    if validated:
        error = _json_content(_reference("HTTPValidationError"))
        responses["422"] = {"description": "Validation Error", "content": error}
    return responses
