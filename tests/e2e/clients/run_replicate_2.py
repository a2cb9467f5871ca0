"""replicate 2.0.0b4 as it is, for `test_replicate_clients.py`. REPLICATE_BASE_URL is the gateway's address."""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import replicate
from answering import answer_calls
from replicate import AsyncReplicate
from waiting import until

Input = dict[str, Any]


def run(ref: str, input: Input) -> str:
    return "".join(replicate.run(ref, input=input))


async def async_run(ref: str, input: Input) -> str:
    async with AsyncReplicate() as client:
        return "".join(await client.run(ref, input=input))


def stream(ref: str, input: Input) -> list[str]:
    return list(replicate.use(ref, streaming=True)(**input))


def model(owner: str, name: str) -> dict[str, Any]:
    found = replicate.models.get(model_owner=owner, model_name=name)
    version = replicate.models.versions.get(model_owner=owner, model_name=name, version_id=found.latest_version.id)
    return {
        "owner": found.owner,
        "name": found.name,
        "version": version.id,
        "versions": [
            listed.id for listed in replicate.models.versions.list(model_owner=owner, model_name=name).results
        ],
        "models": [listed.name for listed in replicate.models.list()],
        "inputs": sorted(version.openapi_schema["components"]["schemas"]["Input"]["properties"]),
    }


def predict(version: str, input: Input) -> dict[str, Any]:
    prediction = replicate.predictions.create(version=version, input=input)
    done = replicate.predictions.wait(prediction.id)
    return {**done.model_dump(mode="json"), "statuses": [prediction.status, done.status]}


def predict_by_deployment(owner: str, name: str, input: Input) -> str:
    found = replicate.deployments.get(deployment_owner=owner, deployment_name=name)
    prediction = replicate.deployments.predictions.create(
        deployment_owner=found.owner, deployment_name=found.name, input=input
    )
    return "".join(replicate.predictions.wait(prediction.id).output)


def use(ref: str, input: Input) -> str:
    return replicate.use(ref)(**input)


def cancel(version: str, input: Input) -> list[str]:
    prediction = replicate.predictions.create(version=version, input=input)
    until(lambda: bool(replicate.predictions.get(prediction_id=prediction.id).output))
    before = replicate.predictions.get(prediction_id=prediction.id)
    canceled = replicate.predictions.cancel(prediction_id=prediction.id)
    return [before.status, canceled.status, replicate.predictions.wait(prediction.id).status]


def cancel_after(version: str, input: Input, duration: str) -> dict[str, Any]:
    prediction = replicate.predictions.create(version=version, input=input, cancel_after=duration)
    return replicate.predictions.wait(prediction.id).model_dump(mode="json")


def newest(count: int) -> list[str]:
    """Ids of the newest predictions, over as many pages as that takes."""
    predictions = iter(replicate.predictions.list())
    return [prediction.id for prediction, _ in zip(predictions, range(count), strict=False)]


def file(content: str) -> dict[str, Any]:
    created = replicate.files.create(content=("note.txt", content.encode(), "text/plain"))
    was_listed = created.id in _file_ids()
    found = replicate.files.get(file_id=created.id)
    replicate.files.delete(file_id=created.id)
    return {
        "size": found.size,
        "sha256": found.checksums.sha256,
        "was_listed": was_listed,
        "is_listed": created.id in _file_ids(),
    }


def _file_ids() -> list[str]:
    return [file.id for file in replicate.files.list()]


def file_as_prompt(version: str, content: str) -> str:
    """Give a file as an input; return the input that the prediction got."""
    prediction = replicate.predictions.create(
        version=version,
        input={"prompt": io.BytesIO(content.encode()), "max_tokens": 1},
        file_encoding_strategy="url",
    )
    return prediction.input["prompt"]


def predict_with_images(version: str, input: Input, files: list[str], strategy: str) -> list[Any]:
    """Give image files as inputs, by either of the client's ways; return what the prediction got, and its output."""
    with ExitStack() as opened:
        images = [opened.enter_context(Path(file).open("rb")) for file in files]
        prediction = replicate.predictions.create(
            version=version, input={**input, "image": images}, file_encoding_strategy=strategy
        )
        done = replicate.predictions.wait(prediction.id)
    return [done.input["image"], "".join(done.output or []), done.error]


def predict_with_webhook(version: str, input: Input, webhook: str) -> str:
    prediction = replicate.predictions.create(
        version=version, input=input, webhook=webhook, webhook_events_filter=["completed"]
    )
    return replicate.predictions.wait(prediction.id).id


def webhook_secret() -> str:
    return replicate.webhooks.default.secret.get().key


answer_calls(
    run,
    async_run,
    stream,
    model,
    predict,
    predict_by_deployment,
    use,
    cancel,
    cancel_after,
    newest,
    file,
    file_as_prompt,
    predict_with_images,
    predict_with_webhook,
    webhook_secret,
)
