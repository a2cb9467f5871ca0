"""Oracle's store: the real ocifs and Oracle's own SDK, with a real signing key, against a stand-in for the service."""

import os
from functools import partial

import ocifs
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from cogsmith.errors import SourceError
from cogsmith.sources.object_store import upload
from cogsmith.sources.silent import Silent
from cogsmith.sources.stores import buckets

from .brought import bring
from .oci_server import OciServer


@pytest.fixture(scope="module")
def private_key():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.fixture
def oci(tmp_path, monkeypatch, private_key):
    """The service with a bucket `b` of the namespace `n`, and the user's file of settings, named by OCI_CONFIG_FILE."""
    server = OciServer()
    server.buckets[("n", "b")] = {}
    (tmp_path / "key.pem").write_bytes(private_key)
    fields = {"user": "ocid1.user.oc1..u", "tenancy": "ocid1.tenancy.oc1..t", "region": "us-ashburn-1"}
    fields |= {"fingerprint": "20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34", "key_file": str(tmp_path / "key.pem")}
    config = tmp_path / "oci-config"
    config.write_text("[DEFAULT]\n" + "".join(f"{name}={value}\n" for name, value in fields.items()))
    monkeypatch.setenv("OCI_CONFIG_FILE", str(config))
    # The service's address cannot be set from outside: Oracle's SDK makes it from the region.
    here = partial(ocifs.OCIFileSystem, config_kwargs={"service_endpoint": server.url})
    monkeypatch.setattr(ocifs, "OCIFileSystem", here)
    yield server
    server.close()


def test_a_folder_is_fetched_once(oci, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BLOCK_BYTES", 10_000)
    content = {"config.json": b"{}", "sub/weights.bin": os.urandom(35_000)}
    oci.buckets["n", "b"] |= {f"run/{path}": data for path, data in content.items()}
    oci.buckets["n", "b"] |= {"run/.hidden": b"x", "runner/other": b"x", "run/": b""}
    assert bring("oci://b@n/run", tmp_path / "cache") == content
    oci.log.clear()
    assert bring("oci://b@n/run", tmp_path / "cache") == content
    assert not [request for request in oci.log if request[0] == "GET" and not request[1].endswith("/o")]
    assert all('keyId="ocid1.tenancy.oc1..t/ocid1.user.oc1..u/' in header for header in oci.authorizations)


def test_one_object_and_a_link_to_it(oci, tmp_path):
    oci.buckets["n", "b"] |= {"run/ep1.pt": b"weights", "run/latest.pt.symlink": b"run/ep1.pt"}
    assert bring("oci://b@n/run/ep1.pt", tmp_path) == {"ep1.pt": b"weights"}
    assert bring("oci://b@n/run/latest.pt", tmp_path) == {"ep1.pt": b"weights"}


def test_changed_content_is_fetched(oci, tmp_path):
    oci.buckets["n", "b"]["a"] = b"old"
    assert bring("oci://b@n/a", tmp_path) == {"a": b"old"}
    oci.buckets["n", "b"]["a"] = b"new"
    assert bring("oci://b@n/a", tmp_path) == {"a": b"new"}


def test_the_md5_of_the_list_is_checked(oci, tmp_path, monkeypatch):
    oci.buckets["n", "b"]["run/a"] = b"content"
    monkeypatch.setattr(buckets.Bucket, "_block", lambda self, stored, begin, end: b"CONTENT"[begin:end])
    with pytest.raises(SourceError, match="a came damaged"):
        bring("oci://b@n/run", tmp_path)


def test_what_is_missing_and_what_is_refused(oci, tmp_path):
    oci.buckets["n", "b"]["run/ep1.pt"] = b"weights"
    with pytest.raises(SourceError, match=r"run/ep2.pt is not there"):
        bring("oci://b@n/run/ep2.pt", tmp_path)
    with pytest.raises(SourceError, match="there is no such bucket"):
        bring("oci://other@n/x", tmp_path)
    oci.refuse = True
    with pytest.raises(SourceError, match="access was refused") as caught:
        bring("oci://b@n/run", tmp_path)
    assert "secret-in-the-answer" not in str(caught.value)


def test_an_upload(oci, tmp_path):
    (tmp_path / "new").mkdir()
    for path in ("config.json", "model.safetensors"):
        (tmp_path / "new" / path).write_bytes(path.encode())
    upload(tmp_path / "new", "oci://b@n/out", reporter=Silent())
    expected = {f"out/{path}": path.encode() for path in ("config.json", "model.safetensors")}
    assert oci.buckets["n", "b"] == expected
    upload(tmp_path / "new", "oci://b@n/out", force=True, reporter=Silent())
    assert oci.buckets["n", "b"] == expected
