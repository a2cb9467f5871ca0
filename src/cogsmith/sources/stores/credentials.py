"""Who is asking, from the environment: each store's own variables and files, and Composer's names for them.

    s3          what boto3 finds; S3_ENDPOINT_URL or AWS_ENDPOINT_URL for a server that is not Amazon's
    gs          what Google's tools find; or GCS_KEY and GCS_SECRET, an HMAC key, through the S3 interface
    az, azure   AZURE_ACCOUNT_NAME and AZURE_ACCOUNT_ACCESS_KEY; or what adlfs reads (AZURE_STORAGE_…)
    oci         ~/.oci/config, or the file that OCI_CONFIG_FILE names; or OCIFS_IAM_TYPE

Where there are none, a public bucket of s3 or gs is asked without.
"""

from __future__ import annotations

import importlib
import logging
import os
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from cogsmith.errors import MissingExtra, SourceError
from cogsmith.sources.stores.faults import CREDENTIALS, LIBRARIES

GCS_S3_ENDPOINT = "https://storage.googleapis.com"
"""Google's S3 interface, for HMAC keys: https://cloud.google.com/storage/docs/interoperability"""

CONNECT_SECONDS = 10
READ_SECONDS = 60
TRIES = 3

# Amazon's newer checksums are not understood by all other servers of the same interface.
_PLAIN_CHECKSUMS = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
# What is listed must be what is there now, and a filesystem must not outlive the environment it was made from.
_FRESH = {"use_listings_cache": False, "skip_instance_cache": True}

# Without a handler of their own, Python would write their warnings to stderr, tracebacks and all.
_NOWHERE = logging.NullHandler()


def open_filesystem(scheme: str, uri: str) -> AbstractFileSystem:
    """Return the filesystem of `scheme` (s3, gs, az, oci). Raises MissingExtra, or SourceError without credentials."""
    for library in LIBRARIES:
        # What they log, they raise too; and it may hold a signed address.
        logging.getLogger(library).addHandler(_NOWHERE)
    return {"s3": _s3, "gs": _gs, "az": _azure, "oci": _oci}[scheme](uri)


def _s3(uri: str) -> AbstractFileSystem:
    package = _package("s3fs", "s3", uri)
    import botocore.session

    anonymous = botocore.session.get_session().get_credentials() is None
    return _s3_filesystem(package, os.environ.get("S3_ENDPOINT_URL"), anon=anonymous)


def _gs(uri: str) -> AbstractFileSystem:
    key, secret = os.environ.get("GCS_KEY"), os.environ.get("GCS_SECRET")
    if key and secret:
        package = _package("s3fs", "s3", f"{uri} with GCS_KEY")
        return _s3_filesystem(package, GCS_S3_ENDPOINT, key=key, secret=secret)
    # Not gcsfs.GCSFileSystem, which asks for the bucket's kind over gRPC first.
    package = _package("gcsfs.core", "gs", uri)
    emulated = bool(os.environ.get("STORAGE_EMULATOR_HOST"))
    return package.GCSFileSystem(token="anon" if emulated else None, **_FRESH)


def _azure(uri: str) -> AbstractFileSystem:
    package = _package("adlfs", "azure", uri)
    name = os.environ.get("AZURE_ACCOUNT_NAME") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not name and not os.environ.get("AZURE_STORAGE_CONNECTION_STRING"):
        raise SourceError(f"{uri} needs the name of an account, and none was found", fix=CREDENTIALS["az"])
    return package.AzureBlobFileSystem(
        account_name=name,
        account_key=os.environ.get("AZURE_ACCOUNT_ACCESS_KEY"),
        connection_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        **_FRESH,
    )


def _oci(uri: str) -> AbstractFileSystem:
    package = _package("ocifs", "oci", uri)
    if os.environ.get("OCIFS_IAM_TYPE"):
        return package.OCIFileSystem(**_FRESH)
    file = Path(os.environ.get("OCI_CONFIG_FILE") or "~/.oci/config").expanduser()
    if not file.is_file():
        raise SourceError(f"{uri} needs credentials, and there is no {file}", fix=CREDENTIALS["oci"])
    return package.OCIFileSystem(config=str(file), profile=os.environ.get("OCI_CLI_PROFILE"), **_FRESH)


def _s3_filesystem(package: Any, endpoint: str | None, **account: Any) -> AbstractFileSystem:
    patience = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": TRIES},
    }
    checksums = _PLAIN_CHECKSUMS if endpoint or os.environ.get("AWS_ENDPOINT_URL") else {}
    filesystem = package.S3FileSystem(
        endpoint_url=endpoint, config_kwargs={**patience, **checksums}, **account, **_FRESH
    )
    # s3fs would try each of botocore's rounds of tries several times again.
    filesystem.retries = 1
    return filesystem


def _package(name: str, extra: str, uri: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra(extra, uri) from None
