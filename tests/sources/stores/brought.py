"""What is fetched from a place in a store."""

from cogsmith.sources.object_store import ObjectStoreLocation
from cogsmith.sources.silent import Silent


def bring(uri, cache):
    """Look at the place `uri` and fetch all of it; return content by path."""
    location = ObjectStoreLocation(uri, cache)
    revision, files = location.list()
    return {name: place.read_bytes() for name, place in location.fetch(revision, files, Silent()).items()}
