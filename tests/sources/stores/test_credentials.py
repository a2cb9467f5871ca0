"""Who is asking: each store's own variables and Composer's, and what is said where there are none."""

import subprocess
import sys

import pytest

from cogsmith.errors import MissingExtra, SourceError
from cogsmith.sources.object_store import ObjectStoreLocation
from cogsmith.sources.stores import credentials

KEY = "QUJDREVG" * 10 + "QUJDREU="


def test_composers_names_for_azures_account_are_used(monkeypatch):
    monkeypatch.setenv("AZURE_ACCOUNT_NAME", "myaccount")
    monkeypatch.setenv("AZURE_ACCOUNT_ACCESS_KEY", KEY)
    filesystem = credentials.open_filesystem("az", "az://c/p")
    assert filesystem.account_url == "https://myaccount.blob.core.windows.net"
    assert filesystem.service_client.credential.account_key == KEY


def test_without_an_azure_account_it_says_what_to_set(tmp_path):
    with pytest.raises(SourceError, match="needs the name of an account") as caught:
        ObjectStoreLocation("az://c/p", tmp_path).list()
    assert "AZURE_ACCOUNT_NAME" in caught.value.fix


def test_without_oracles_file_it_says_what_to_make(tmp_path, monkeypatch):
    monkeypatch.setenv("OCI_CONFIG_FILE", str(tmp_path / "no-such-file"))
    with pytest.raises(SourceError, match=r"there is no .*no-such-file") as caught:
        ObjectStoreLocation("oci://b@n/p", tmp_path).list()
    assert "OCI_CONFIG_FILE" in caught.value.fix


@pytest.mark.parametrize(
    ("uri", "package", "extra"),
    [
        ("s3://b/p", "s3fs", "s3"),
        ("gs://b/p", "gcsfs.core", "gs"),
        ("az://b/p", "adlfs", "azure"),
        ("azure://b/p", "adlfs", "azure"),
        ("oci://b@n/p", "ocifs", "oci"),
    ],
)
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, uri, package, extra):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingExtra) as caught:
        ObjectStoreLocation(uri, tmp_path).list()
    assert caught.value.extra == extra


def test_the_libraries_do_not_write_to_the_terminal():
    script = """
import logging
from cogsmith.sources.stores.credentials import open_filesystem
open_filesystem("s3", "s3://b/p")
for name in ("gcsfs", "azure.core.pipeline", "botocore.hooks", "urllib3.connectionpool"):
    logging.getLogger(name).warning("https://host/?signature=s3cr3t")
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert (ran.stdout, ran.stderr) == ("", "")
