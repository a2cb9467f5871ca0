"""One file of a web server that cuts connections, forgets ranges, redirects, and refuses."""

import os

import pytest

from cogsmith.errors import SourceError
from cogsmith.sources.object_store import ObjectStoreLocation
from cogsmith.sources.silent import Silent

from .brought import bring

CONTENT = os.urandom(300_000)


def test_a_file_is_fetched_once(web, tmp_path):
    web.files["/run/ep1.pt"] = CONTENT
    _, (file,) = ObjectStoreLocation(f"{web.url}/run/ep1.pt", tmp_path).list()
    assert (file.path, file.size, file.cached) == ("ep1.pt", 300_000, False)
    assert bring(f"{web.url}/run/ep1.pt", tmp_path) == {"ep1.pt": CONTENT}
    web.log.clear()
    assert bring(f"{web.url}/run/ep1.pt", tmp_path) == {"ep1.pt": CONTENT}
    assert {method for method, *_ in web.log} == {"HEAD"}


def test_changed_content_is_another_revision(web, tmp_path):
    web.files["/a"] = b"old"
    before, _ = ObjectStoreLocation(f"{web.url}/a", tmp_path).list()
    bring(f"{web.url}/a", tmp_path)
    web.files["/a"] = b"new"
    assert ObjectStoreLocation(f"{web.url}/a", tmp_path).list()[0] != before
    assert bring(f"{web.url}/a", tmp_path) == {"a": b"new"}


def test_a_server_without_head_is_asked_for_a_byte(web, tmp_path):
    web.files["/a.pt"], web.head = CONTENT, False
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}
    assert web.gets() == ["bytes=0-0", None, "bytes=0-0"]


def test_without_head_and_ranges_the_length_of_the_whole_is_used(web, tmp_path):
    web.files["/a.pt"], web.head, web.ranges = CONTENT, False, False
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}


def test_without_a_length_there_is_an_error(web, tmp_path):
    web.files["/a.pt"], web.lengths, web.ranges = CONTENT, False, False
    with pytest.raises(SourceError, match="does not say how long it is"):
        bring(f"{web.url}/a.pt", tmp_path)


def test_redirects_are_followed(web, tmp_path):
    web.files["/real/content"] = CONTENT
    web.redirects = {"/a.pt": "/b.pt", "/b.pt": f"{web.url}/real/content?signature=s3cr3t"}
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}


def test_cut_connections_go_on_where_they_stopped(web, tmp_path):
    web.files["/a.pt"], web.cuts = CONTENT, [100_000, 200_001]
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}
    assert web.gets() == [None, "bytes=100000-", "bytes=200001-"]


def test_a_server_that_cannot_skip_begins_again(web, tmp_path):
    web.files["/a.pt"], web.cuts, web.ranges = CONTENT, [100_000, 200_001], False
    watcher = Watcher()
    location = ObjectStoreLocation(f"{web.url}/a.pt", tmp_path)
    revision, files = location.list()
    assert location.fetch(revision, files, watcher)["a.pt"].read_bytes() == CONTENT
    assert web.gets() == [None, "bytes=100000-", "bytes=200001-"]
    assert watcher.done == len(CONTENT)


def test_a_server_that_refuses_to_skip_is_asked_for_all(web, tmp_path):
    web.files["/a.pt"], web.cuts, web.refuses_ranges = CONTENT, [100_000], True
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}
    assert web.gets() == [None, "bytes=100000-", None]


def test_without_a_version_nothing_is_pieced_together(web, tmp_path):
    web.files["/a.pt"], web.cuts, web.etags = CONTENT, [100_000], False
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}
    assert web.gets() == [None, None]


def test_without_a_version_it_is_fetched_anew_in_each_run(web, tmp_path):
    web.files["/a.pt"], web.etags = b"old", False
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": b"old"}
    web.files["/a.pt"] = b"new"
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": b"new"}


def test_the_next_run_uses_what_a_broken_one_brought(web, tmp_path):
    web.files["/a.pt"], web.cuts = CONTENT, [100_000] + [100_000] * 5
    with pytest.raises(SourceError, match="cut at byte 100000 of 300000"):
        bring(f"{web.url}/a.pt", tmp_path)
    (partial,) = tmp_path.rglob("*.partial")
    assert partial.read_bytes() == CONTENT[:100_000]
    web.cuts = []
    web.log.clear()
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}
    assert web.gets() == ["bytes=100000-"]


def test_many_cuts_are_no_trouble_while_each_try_brings_something(web, tmp_path):
    web.files["/a.pt"], web.cuts = CONTENT, [number * 20_000 for number in range(1, 15)]
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}


def test_a_file_that_changes_midway_is_an_error(web, tmp_path):
    web.files["/a.pt"], web.cuts = CONTENT, [100_000]
    location = ObjectStoreLocation(f"{web.url}/a.pt", tmp_path)
    revision, files = location.list()
    web.files["/a.pt"] = CONTENT[::-1]
    with pytest.raises(SourceError, match="changed while it was fetched"):
        location.fetch(revision, files, Silent())
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT[::-1]}


def test_a_change_between_two_tries_is_an_error(web, tmp_path):
    web.files["/a.pt"], web.cuts = CONTENT, [100_000]
    web.on_cut = lambda: web.files.update({"/a.pt": CONTENT[::-1]})
    with pytest.raises(SourceError, match="changed while it was fetched"):
        bring(f"{web.url}/a.pt", tmp_path)
    assert not [path for path in tmp_path.rglob("a.pt") if path.is_file()]


def test_a_file_that_is_not_there(web, tmp_path):
    with pytest.raises(SourceError, match="/folder/ is no file on that server") as caught:
        bring(f"{web.url}/folder/", tmp_path)
    assert "does not list a folder" in caught.value.fix


def test_a_missing_file_is_looked_for_as_a_link(web, tmp_path):
    web.files |= {"/run/latest.pt.symlink": b"ep1.pt", "/run/ep1.pt": CONTENT}
    assert bring(f"{web.url}/run/latest.pt", tmp_path) == {"ep1.pt": CONTENT}


def test_a_link_to_another_server_is_refused(web, tmp_path):
    web.files["/run/latest.pt.symlink"] = b"http://other.example/x.pt"
    with pytest.raises(SourceError, match="leads to another server"):
        bring(f"{web.url}/run/latest.pt", tmp_path)


@pytest.mark.parametrize("status", [401, 403, 418, 500, 503])
def test_a_refusal_shows_no_secret(web, tmp_path, status):
    web.statuses["/a.pt"] = status
    address = web.url.replace("//", "//user:pass-s3cr3t@") + "/a.pt?X-Amz-Signature=s3cr3t"
    with pytest.raises(SourceError, match=r"refused|HTTP (418|500|503)") as caught:
        bring(address, tmp_path)
    assert "s3cr3t" not in str(caught.value)
    assert f"{web.url}/a.pt" in str(caught.value)


def test_the_uri_that_is_recorded_has_no_secret(web, tmp_path):
    address = web.url.replace("//", "//user:pass-s3cr3t@") + "/a.pt?X-Amz-Signature=s3cr3t"
    assert ObjectStoreLocation(address, tmp_path).uri == f"{web.url}/a.pt"


def test_a_server_that_is_not_there(tmp_path):
    with pytest.raises(SourceError, match="cannot be reached"):
        bring("http://127.0.0.1:9/a.pt", tmp_path)


def test_trouble_that_passes_is_waited_for(web, tmp_path):
    web.files["/a.pt"] = CONTENT
    location = ObjectStoreLocation(f"{web.url}/a.pt", tmp_path)
    revision, files = location.list()
    web.statuses = Passing({"/a.pt": 503}, times=3)
    assert location.fetch(revision, files, Silent())["a.pt"].read_bytes() == CONTENT


@pytest.mark.parametrize(("given", "name"), [("a%20b.pt", "a b.pt"), ("%2E%2E%2Fevil", "_evil"), ("x%5Cy", "x_y")])
def test_a_name_in_an_address_is_a_plain_name(web, tmp_path, given, name):
    web.files[f"/{given}"] = b"content"
    assert bring(f"{web.url}/{given}", tmp_path) == {name: b"content"}


class Passing(dict):
    """Statuses that are given a few times only."""

    def __init__(self, statuses, times):
        super().__init__(statuses)
        self._times = times

    def get(self, key, default=None):
        self._times -= 1
        return super().get(key, default) if self._times >= 0 else default


class Watcher(Silent):
    done = 0

    def advance(self, amount):
        self.done += amount


def test_a_server_that_sends_another_part_than_was_asked_for_ends_in_an_error(web, tmp_path):
    web.files["/a.pt"], web.cuts, web.wrong_parts = CONTENT, [150_000] * 20, True
    with pytest.raises(SourceError, match="was cut at byte"):
        bring(f"{web.url}/a.pt", tmp_path)
    assert not list(tmp_path.rglob("a.pt"))


def test_a_server_that_does_not_stop_fills_no_disk(web, tmp_path):
    web.files["/a.pt"], web.surplus = CONTENT, b"x" * 1_000_000
    with pytest.raises(SourceError, match="goes on after its 300000 bytes"):
        bring(f"{web.url}/a.pt", tmp_path)
    assert all(path.stat().st_size <= 300_000 for path in tmp_path.rglob(".*") if path.is_file())


@pytest.mark.parametrize("md5", ["not base64!!", "abc=", "\xe9"])
def test_what_is_no_md5_is_none(web, tmp_path, md5):
    web.files["/a.pt"], web.md5 = CONTENT, md5
    assert bring(f"{web.url}/a.pt", tmp_path) == {"a.pt": CONTENT}
