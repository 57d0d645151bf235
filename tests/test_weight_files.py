"""Published weight files come from the caches or a download and are verified."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch

from util.errors import UserError
from util.run.weights import PublishedFile, cache_folders, find_weights, load_weights

STATE = {"a.weight": torch.arange(6.0)}


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    """Both caches in an empty home."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return cache_folders()


def published(tmp_path, **changes) -> PublishedFile:
    """A file that can be "downloaded" from the disk."""
    path = tmp_path / "server" / "net.pth"
    path.parent.mkdir(exist_ok=True)
    torch.save(STATE, path)
    return PublishedFile(**{"what": "the net", "name": "net.pth", "url": path.as_uri()} | changes)


def put(folder, content=STATE):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "net.pth")
    return folder / "net.pth"


def test_both_caches_are_searched_magpts_own_first(tmp_path, caches):
    assert [str(folder.relative_to(tmp_path)) for folder in caches] == [
        "home/.cache/torch/checkpoints", "torch/hub/checkpoints"
    ]  # fmt: skip
    file = published(tmp_path, url="file:///nowhere")
    hub = put(caches[1])
    assert find_weights(file) == hub
    own = put(caches[0])
    assert find_weights(file) == own


def test_a_file_of_ones_own_is_used_before_all(tmp_path, caches):
    put(caches[0])
    own = put(tmp_path / "mine")
    assert find_weights(published(tmp_path), own) == own
    with pytest.raises(UserError, match="no such file; expected the net"):
        find_weights(published(tmp_path), tmp_path / "none.pth")


def test_a_missing_file_is_downloaded_into_the_cache(tmp_path, caches):
    file = published(tmp_path)
    path = find_weights(file)
    assert path == caches[1] / "net.pth"
    assert torch.equal(load_weights(file, path)["a.weight"], STATE["a.weight"])
    assert [p.name for p in path.parent.iterdir()] == ["net.pth"]


def test_ignore_cache_downloads_again(tmp_path, caches):
    put(caches[1], {"old": torch.zeros(1)})
    file = published(tmp_path)
    assert list(load_weights(file, find_weights(file, ignore_cache=True))) == ["a.weight"]


def test_a_download_over_http_is_verified_by_its_hash(tmp_path):
    source = published(tmp_path)
    content = (tmp_path / "server" / "net.pth").read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args):
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/net.pth"
        digest = hashlib.sha256(content).hexdigest()
        good = PublishedFile(source.what, source.name, url, digest[:8])
        bad = PublishedFile(source.what, "other.pth", url, "00000000")
        assert find_weights(good).read_bytes() == content
        with pytest.raises(UserError, match=f"its sha256 is {digest}, expected 00000000"):
            find_weights(bad)
    finally:
        server.shutdown()
        server.server_close()


def test_a_cached_file_with_another_hash_is_refused(tmp_path, caches):
    put(caches[0])
    with pytest.raises(UserError, match="is not the net: its sha256 does not begin with 12345678"):
        find_weights(published(tmp_path, sha256="12345678"))


@pytest.mark.parametrize("content", [b"<html>gone</html>", b"PK\x03\x04 cut off"])
def test_a_web_page_or_half_a_file_is_not_kept(tmp_path, caches, content):
    (tmp_path / "server").mkdir()
    page = tmp_path / "server" / "page.html"
    page.write_bytes(content)
    file = PublishedFile("the net", "net.pth", page.as_uri())
    with pytest.raises(UserError, match="could not be downloaded"):
        find_weights(file)
    assert list(caches[1].iterdir()) == []


def test_without_file_and_network_one_sentence_says_where_to_put_it(tmp_path, caches):
    file = published(tmp_path, url="http://127.0.0.1:9/net.pth")
    with pytest.raises(UserError) as caught:
        find_weights(file)
    message = str(caught.value)
    assert "the net is in neither cache" in message
    assert f"put net.pth into {caches[0]} or {caches[1]}" in message
    assert "\n" not in message


def test_a_file_that_holds_no_state_dict_is_refused(tmp_path):
    path = put(tmp_path / "mine", [1, 2, 3])
    with pytest.raises(UserError, match="does not hold a state dict"):
        load_weights(published(tmp_path), path)


def test_wrapper_prefixes_are_dropped(tmp_path):
    path = put(tmp_path / "mine", {"module.a": torch.zeros(1)})
    assert list(load_weights(published(tmp_path), path)) == ["a"]
