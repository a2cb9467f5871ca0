"""Objects of a test's bucket: written by boto3, and brought here."""

from cogsmith.sources.object_store import ObjectStoreLocation
from cogsmith.sources.silent import Silent


def put(s3, **objects):
    for key, content in objects.items():
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=content)


def bring(s3, path, cache, **settings):
    """Look at a place of the test's bucket and fetch all of it; return content by path."""
    location = ObjectStoreLocation(f"s3://{s3.bucket}{path}", cache)
    revision, files = location.list()
    return {name: place.read_bytes() for name, place in location.fetch(revision, files, Silent()).items()}
