"""replicate 1.0.7 as it is, for `test_replicate_clients.py`. REPLICATE_BASE_URL is the gateway's address."""

from __future__ import annotations

import io
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import replicate
from answering import answer_calls
from replicate.webhook import WebhookSigningSecret
from waiting import until

Input = dict[str, Any]


def run(ref: str, input: Input) -> str:
    return "".join(replicate.run(ref, input=input))


async def async_run(ref: str, input: Input) -> str:
    output = await replicate.async_run(ref, input=input)
    # Of a pinned version it is an iterator.
    return "".join(output if isinstance(output, list) else [chunk async for chunk in output])


def stream(ref: str, input: Input) -> list[str]:
    return [str(event) for event in replicate.stream(ref, input=input) if event.event.value == "output"]


async def async_stream(ref: str, input: Input) -> list[str]:
    events = await replicate.async_stream(ref, input=input)
    return [str(event) async for event in events if event.event.value == "output"]


def model(owner: str, name: str) -> dict[str, Any]:
    found = replicate.models.get(owner, name)
    version = found.versions.get(found.latest_version.id)
    return {
        "owner": found.owner,
        "name": found.name,
        "version": version.id,
        "versions": [listed.id for listed in found.versions.list()],
        "models": [listed.name for listed in replicate.models.list()],
        "inputs": sorted(version.openapi_schema["components"]["schemas"]["Input"]["properties"]),
    }


def predict(version: str, input: Input) -> dict[str, Any]:
    prediction = replicate.predictions.create(version=version, input=input)
    first = prediction.status
    prediction.wait()
    again = replicate.predictions.get(prediction.id)
    return {**again.dict(exclude={"_client"}), "statuses": [first, prediction.status]}


def predict_by_deployment(owner: str, name: str, input: Input) -> str:
    prediction = replicate.deployments.get(f"{owner}/{name}").predictions.create(input=input)
    prediction.wait()
    return "".join(prediction.output)


def output_iterator(version: str, input: Input) -> list[str]:
    return list(replicate.predictions.create(version=version, input=input).output_iterator())


def cancel(version: str, input: Input) -> list[str]:
    prediction = replicate.predictions.create(version=version, input=input)

    def has_output() -> bool:
        prediction.reload()
        return bool(prediction.output)

    until(has_output)
    before = prediction.status
    prediction.cancel()
    canceled = prediction.status
    prediction.wait()
    return [before, canceled, prediction.status]


def newest(count: int) -> list[str]:
    """Ids of the newest predictions, over as many pages as that takes."""
    page = replicate.predictions.list()
    ids = [prediction.id for prediction in page]
    while page.next and len(ids) < count:
        page = replicate.predictions.list(page.next)
        ids += [prediction.id for prediction in page]
    return ids[:count]


def file(content: str) -> dict[str, Any]:
    created = replicate.files.create(io.BytesIO(content.encode()), filename="note.txt", content_type="text/plain")
    was_listed = created.id in _file_ids()
    found = replicate.files.get(created.id)
    replicate.files.delete(created.id)
    return {
        "size": found.size,
        "sha256": found.checksums["sha256"],
        "was_listed": was_listed,
        "is_listed": created.id in _file_ids(),
    }


def _file_ids() -> list[str]:
    return [file.id for file in replicate.files.list()]


def file_as_prompt(version: str, content: str) -> str:
    """Give a file as an input; return the input that the prediction got."""
    prediction = replicate.predictions.create(
        version=version, input={"prompt": io.BytesIO(content.encode()), "max_tokens": 1}
    )
    return prediction.input["prompt"]


def predict_with_images(version: str, input: Input, files: list[str], strategy: str) -> list[Any]:
    """Give image files as inputs, by either of the client's ways; return what the prediction got, and its output."""
    with ExitStack() as opened:
        images = [opened.enter_context(Path(file).open("rb")) for file in files]
        prediction = replicate.predictions.create(
            version=version, input={**input, "image": images}, file_encoding_strategy=strategy
        )
        prediction.wait()
    return [prediction.input["image"], "".join(prediction.output or []), prediction.error]


def predict_with_webhook(version: str, input: Input, webhook: str) -> str:
    prediction = replicate.predictions.create(
        version=version, input=input, webhook=webhook, webhook_events_filter=["completed"]
    )
    prediction.wait()
    return prediction.id


def webhook_secret() -> str:
    return replicate.webhooks.default.secret().key


def webhook_is_valid(headers: dict[str, str], body: str, secret: str) -> bool:
    try:
        replicate.webhooks.validate(headers=headers, body=body, secret=WebhookSigningSecret(key=secret), tolerance=60)
    except ValueError:
        return False
    return True


answer_calls(
    run,
    async_run,
    stream,
    async_stream,
    model,
    predict,
    predict_by_deployment,
    output_iterator,
    cancel,
    newest,
    file,
    file_as_prompt,
    predict_with_images,
    predict_with_webhook,
    webhook_secret,
    webhook_is_valid,
)
