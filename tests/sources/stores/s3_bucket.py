"""Objects of a test's bucket: written by boto3, and brought here."""

from . import brought


def put(s3, **objects):
    for key, content in objects.items():
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=content)


def bring(s3, path, cache):
    """Look at a place of the test's bucket and fetch all of it; return content by path."""
    return brought.bring(f"s3://{s3.bucket}{path}", cache)
