"""Uploaded files on their way to a model: inputs name them by their URLs here, and its server is given what is in them.

The hosted service fetches a file for the model that it is an input of. A Cog server here could not: the URL of a file
shows its description, as clients expect, and a gateway may demand a token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cogsmith import data_uris
from cogsmith.errors import ServeError, UnknownResource
from cogsmith.gateway.files import FileStore

_URL = re.compile(r"https?://[^/?#]+(?:/v1)?/files/([0-9a-f]{40})(?:/download)?")


def names_any(inputs: Mapping[str, Any], files: FileStore) -> bool:
    """Whether `inputs` hold the URL of one of `files`: nothing is read to tell."""
    values = (item for value in inputs.values() for item in (value if isinstance(value, list) else (value,)))
    return any(_named(value, files) for value in values)


def with_files(inputs: Mapping[str, Any], openapi_schema: Mapping[str, Any], files: FileStore) -> dict[str, Any]:
    """Return `inputs` with a data URI in the place of each URL of one of `files`, where the schema wants a file.

    Other URLs stay as they are. Raises ServeError where a file has been deleted.
    """
    properties = openapi_schema["components"]["schemas"]["Input"].get("properties", {})
    return {
        name: _filled(value, files) if _is_file(properties.get(name, {})) else value for name, value in inputs.items()
    }


def _is_file(schema: Mapping[str, Any]) -> bool:
    """Whether an input is a file, or a list of files."""
    return "uri" in (schema.get("format"), schema.get("items", {}).get("format"))


def _filled(value: Any, files: FileStore) -> Any:
    if isinstance(value, list):
        return [_filled(item, files) for item in value]
    file_id = _named(value, files)
    return value if file_id is None else _data_uri(value, file_id, files)


def _named(value: Any, files: FileStore) -> str | None:
    """Return the id of the file whose URL `value` is, if it is that of one that was here."""
    match = _URL.fullmatch(value) if isinstance(value, str) else None
    return match[1] if match and files.had(match[1]) else None


def _data_uri(url: str, file_id: str, files: FileStore) -> str:
    try:
        file = files.get(file_id)
        content = file.path.read_bytes()
    except (UnknownResource, OSError) as error:
        raise ServeError(f"the file {url} is there no more", fix="keep it until the prediction has ended") from error
    return data_uris.encode(content, file.content_type.partition(";")[0].strip())
