"""What goes wrong at an object store, in the user's words.

The libraries' exceptions are told apart by their status, their code and their type's name, so that no library has to
be installed for another's sake. A message never repeats what a server or a library said, because that may hold a
signed address or a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Literal

from cogsmith.errors import SourceError

Kind = Literal["credentials", "bucket", "missing", "forbidden", "archived", "passing"]

CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
    "S3_ENDPOINT_URL names a server that is not Amazon's",
    "gs": "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS, "
    "or GCS_KEY and GCS_SECRET for an HMAC key",
    "az": "set AZURE_ACCOUNT_NAME and AZURE_ACCOUNT_ACCESS_KEY, or AZURE_STORAGE_CONNECTION_STRING",
    "oci": "make ~/.oci/config with `oci setup config`, or name another file in OCI_CONFIG_FILE",
    "http": "name an address that is public, or fetch the file and name its path",
}
"""How to say who is asking, by scheme."""

LIBRARIES = frozenset(
    {"adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "httpx2", "oci", "ocifs"}
    | {"requests", "s3fs", "urllib3"}
)
"""By the names of their top-level modules, which their loggers have too."""
_CREDENTIAL_ERRORS = frozenset(
    {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
        "DefaultCredentialsError",
        "RefreshError",
        "ClientAuthenticationError",
        "CredentialUnavailableError",
        "ConfigFileNotFound",
        "InvalidConfig",
        "InvalidKeyFilePath",
        "InvalidPrivateKey",
        "ProfileNotFoundError",
    }
)
_BUCKET_CODES = frozenset({"NoSuchBucket", "ContainerNotFound", "BucketNotFound"})
_ARCHIVED_CODES = frozenset({"InvalidObjectState", "BlobArchived", "NotRestored"})
_MISSING = (HTTPStatus.NOT_FOUND, HTTPStatus.GONE)
_REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def is_foreign(error: BaseException) -> bool:
    """Tell an exception of a store, its library or the network from a fault of ours.

    ValueError is how s3fs and gcsfs refuse what they cannot even send.
    """
    top = type(error).__module__.partition(".")[0]
    return top in LIBRARIES or isinstance(error, OSError | ValueError)


def kind(error: BaseException) -> Kind:
    """Say what sort of trouble it is; "passing" is whatever another try may mend."""
    links = list(_chain(error))
    codes = {code for link in links for code in _codes(link)}
    statuses = {status for link in links for status in _statuses(link)}
    if any(type(link).__name__ in _CREDENTIAL_ERRORS for link in links):
        return "credentials"
    if codes & _BUCKET_CODES:
        return "bucket"
    if codes & _ARCHIVED_CODES:
        return "archived"
    if statuses.intersection(_REFUSED) or any(isinstance(link, PermissionError) for link in links):
        return "forbidden"
    if statuses.intersection(_MISSING) or any(isinstance(link, FileNotFoundError) for link in links):
        return "missing"
    return "passing"


def explain(error: BaseException, uri: str, scheme: str) -> SourceError:
    """Return `error`, met at `uri`, as a SourceError with the fix. Chain nothing to it: the original may tell."""
    match kind(error):
        case "credentials":
            return SourceError(f"{uri} needs credentials, and none that work were found", fix=CREDENTIALS[scheme])
        case "bucket":
            return no_bucket(uri)
        case "forbidden":
            return SourceError(
                f"{uri}: access was refused",
                fix=f"ask for the right to read and list it, or use other credentials: {CREDENTIALS[scheme]}",
            )
        case "archived":
            return SourceError(f"{uri} is archived and cannot be read at once", fix="restore it in the store first")
        case "missing":
            return SourceError(f"{uri} does not exist", fix="check the name")
        case "passing":
            return SourceError(
                f"{uri} cannot be reached ({reason(error)})",
                fix="check the network, the proxy settings and the store's endpoint, and run again",
            )


def no_bucket(uri: str) -> SourceError:
    """Say that the bucket of `uri` does not exist."""
    return SourceError(f"{uri}: there is no such bucket", fix="check its name, and whose account is asking")


def reason(error: BaseException) -> str:
    """Name an error by its HTTP status or type, which hold no secret."""
    status = next((status for link in _chain(error) for status in _statuses(link)), None)
    return f"HTTP {status}" if status else type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _statuses(error: BaseException) -> Iterator[int]:
    """Yield HTTP statuses: botocore has them in a dictionary, the others in an attribute, gcsfs some in the text."""
    values = [getattr(error, "status_code", None), getattr(error, "status", None), vars(error).get("code")]
    values.append(_answer(error).get("ResponseMetadata", {}).get("HTTPStatusCode"))
    yield from (value for value in values if isinstance(value, int) and value >= HTTPStatus.BAD_REQUEST)
    if type(error) is OSError and str(error).startswith("Forbidden"):
        yield HTTPStatus.FORBIDDEN


def _codes(error: BaseException) -> Iterator[str]:
    """Yield the stores' own words for what is wrong."""
    values = [getattr(error, "error_code", None), vars(error).get("code")]
    values.append(_answer(error).get("Error", {}).get("Code"))
    # Azure's are an enumeration of texts.
    yield from (getattr(value, "value", value) for value in values if isinstance(value, str))


def _answer(error: BaseException) -> Mapping[str, Any]:
    answer = getattr(error, "response", None)
    return answer if isinstance(answer, Mapping) else {}
