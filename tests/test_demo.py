"""The demo's server: people, poses and pictures, and what it says to everything else."""

import http.client
import io
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from api import PoseTransfer
from data.gallery import SyntheticSamples
from models import list_models
from models.estimators import PersonFinder
from script.demo import MAX_UPLOAD, PAGE, Studio, build_parser, build_server
from tests.demo_helpers import Served, picture_of, served, studio_of
from tests.photo_helpers import ListEstimator, StickFigureEstimator, make_run, photo, standing
from tests.ports import free_port
from tests.test_photo import png
from util.errors import UserError
from util.show.server import MAX_WAITING
from util.tables.patn import read_keypoints
from util.tables.poses import pose_text

ROOT = Path(__file__).resolve().parent.parent
STANDING = standing(0, 0, 256, 176)


@pytest.fixture(scope="module")
def demo(tmp_path_factory, people):
    """A served demo of a small untrained DPTN and the synthetic test people."""
    run = make_run(tmp_path_factory.mktemp("runs") / "dptn", "dptn")
    with served(studio_of(run, people, StickFigureEstimator())) as made:
        yield made


def jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def fields(**changes) -> dict:
    keypoints = STANDING.tolist()
    return {"source": "0", "source_keypoints": keypoints, "keypoints": keypoints} | changes


# ---- what the page is given ----------------------------------------------------------------------


def test_the_picture_is_that_of_the_api_and_of_a_data_set_s_pair(demo, people):
    """Thumbnails are sources as test.py reads them."""
    described = demo.json("GET", "/source/3")
    target = STANDING + 0.5
    asked = fields(source="3", source_keypoints=described["keypoints"], keypoints=target.tolist())
    status, headers, body = demo.ask("POST", "/picture", json.dumps(asked).encode())
    assert (status, headers["Content-Type"]) == (200, "image/png")
    assert float(headers["X-Milliseconds"]) > 0
    name = described["name"]
    own = read_keypoints(people / "fasion-resize-annotation-test.csv")[name]
    expected = demo.studio.transfer.transfer(people / "test" / name, target, own)
    assert np.array_equal(picture_of(body), np.asarray(expected))


def test_a_person_is_encoded_once_while_the_pose_changes_and_the_pixels_are_those_of_the_api(
    people, tmp_path
):
    run = make_run(tmp_path / "run", "dptn")
    studio, fresh = studio_of(run, people), PoseTransfer.from_checkpoint(run, device="cpu")
    encoded = []
    encoder = studio.transfer.model.networks["G"].source_encoder
    encoder.block0.register_forward_hook(lambda *_: encoded.append(1))
    for person, times in ((0, 1), (0, 1), (3, 2), (0, 3)):
        source, pose = studio.sample(person), STANDING + len(encoded)
        rows = source.image, pose, STANDING
        assert np.array_equal(studio.transfer.transfer(*rows), fresh.transfer(*rows))
        assert len(encoded) == times


@pytest.mark.parametrize("model", list_models())
def test_every_model_makes_pictures(model, tmp_path):
    transfer = PoseTransfer.from_checkpoint(make_run(tmp_path / model, model), device="cpu")
    samples = SyntheticSamples(transfer.load_size, transfer.annotation_size)
    with served(Studio(transfer, samples, None)) as made:
        start = made.json("GET", "/start")
        own = made.json("GET", "/source/1")["keypoints"]
        sizes = set()
        for preset in start["presets"][:2]:
            asked = fields(source="1", source_keypoints=own, keypoints=preset["keypoints"])
            body = made.ask("POST", "/picture", json.dumps(asked).encode())[2]
            sizes.add(picture_of(body).shape)
        assert sizes == {(*transfer.model.result_size, 3)}


def test_a_point_of_the_picture_is_traced_to_where_it_comes_from(demo, tmp_path):
    asked = fields(source="3", point=[100.0, 60.0])
    told = demo.json("POST", "/origin", json.dumps(asked).encode())["map"]
    source, pose = demo.studio.sample(3), np.array(asked["keypoints"])
    attention = demo.studio.transfer.explain(source.image, pose, pose).attention
    mean = np.mean([block[0].mean(dim=0).numpy() for block in attention], axis=0)
    expected = mean[100 * mean.shape[0] // 256, 60 * mean.shape[1] // 176]
    assert np.allclose(told, 255 * expected / expected.max(), atol=1.01)
    flow = PoseTransfer.from_checkpoint(make_run(tmp_path / "flow", "poseflownet"), device="cpu")
    with served(Studio(flow, demo.studio.samples, None)) as made:
        place = made.json("POST", "/origin", json.dumps(asked).encode())["place"]
    assert np.isfinite(place).all()
    assert np.abs(np.array(place) - (100, 60)).max() < 600


def test_samples_come_in_pages_each_once_with_their_thumbnails(demo):
    total = demo.json("GET", "/start")["samples"]
    listed = demo.json("GET", "/samples/0")
    assert len({sample["name"] for sample in listed}) == len(listed) == total == 6
    assert demo.json("GET", f"/samples/{total}") == []
    status, headers, body = demo.ask("GET", "/thumbnail/2")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert picture_of(body).shape == (160, 110, 3)


def test_an_own_photo_is_cut_out_around_its_person(demo):
    image = photo((600, 400))
    answer = demo.json("POST", "/photo?name=me.jpg", jpeg(image))
    assert (answer["name"], answer["own"], answer["found"]) == ("me.jpg", True, True)
    assert "was trained on pictures of 64 x 64 pixels" in answer["note"]
    rows = np.array(answer["keypoints"])[:, 0]
    assert 20 < rows.min() < 60  # the head lies near the top of the crop, the feet near its end
    assert 200 < rows.max() < 250
    shown = picture_of(demo.ask("GET", f"/source/{answer['id']}/picture")[2])
    assert abs(shown.shape[1] / shown.shape[0] - 176 / 256) < 0.01
    asked = fields(source=answer["id"], source_keypoints=answer["keypoints"])
    assert demo.ask("POST", "/picture", json.dumps(asked).encode())[0] == 200


def test_without_an_estimator_the_skeleton_is_put_by_hand_and_the_photo_cropped_to_it(people, demo):
    studio = Studio(demo.studio.transfer, demo.studio.samples, None)
    with served(studio) as made:
        answer = made.json("POST", "/photo?name=me.jpg", jpeg(photo((600, 400))))
        assert "started with --estimator none. Put the skeleton onto" in answer["note"]
        put = {"source_keypoints": standing(100, 60, 60, 40).tolist()}
        path = f"/source/{answer['id']}/crop"
        cropped = made.json("POST", path, json.dumps(put).encode())
        rows = np.array(cropped["keypoints"])[:, 0]
        assert rows.max() - rows.min() > 150  # the small figure fills the crop


def test_a_photo_in_which_nobody_is_found_can_be_used_all_the_same(demo):
    studio = Studio(demo.studio.transfer, demo.studio.samples, PersonFinder(ListEstimator([])))
    with served(studio) as made:
        answer = made.json("POST", "/photo?name=wall.jpg", jpeg(photo()))
        assert answer["note"].startswith("wall.jpg: no person was found")
        assert not answer["found"]
        assert len(answer["keypoints"]) == 18


def test_the_pose_of_a_photo_and_of_our_file_are_read(demo):
    of_photo = demo.json("POST", "/pose?name=friend.jpg", jpeg(photo((500, 700))))
    assert np.array(of_photo["keypoints"]).shape == (18, 2)
    text = pose_text(STANDING, (256, 176)).encode()
    assert demo.json("POST", "/pose?name=pose.json", text)["keypoints"] == STANDING.tolist()


def test_a_pose_takes_the_limb_lengths_of_the_person(demo):
    tall, small = standing(10, 40, 240, 90), standing(60, 60, 120, 60)
    asked = {"source_keypoints": small.tolist(), "keypoints": tall.tolist()}
    fit = np.array(demo.json("POST", "/fit", json.dumps(asked).encode())["keypoints"])
    assert abs(np.ptp(fit[:, 0]) - np.ptp(small[:, 0])) < 3


def test_the_oldest_own_photo_is_forgotten_with_a_sentence(demo):
    first = demo.json("POST", "/photo?name=me.jpg", jpeg(photo()))["id"]
    for _ in range(12):
        demo.json("POST", "/photo?name=me.jpg", jpeg(photo()))
    status, sentence = demo.refused("GET", f"/source/{first}")
    assert status == 400
    assert "give your photo again" in sentence


def test_a_slow_photo_does_not_hold_up_the_pictures(demo):
    entered, leave = threading.Event(), threading.Event()

    def slow(image, name):
        entered.set()
        leave.wait(30)
        raise UserError("slow")

    with served(Studio(demo.studio.transfer, demo.studio.samples, slow)) as made:
        upload = threading.Thread(
            target=made.ask, args=("POST", "/photo?name=me.jpg", jpeg(photo()))
        )
        upload.start()
        assert entered.wait(30)
        assert made.ask("POST", "/picture", json.dumps(fields()).encode())[0] == 200
        leave.set()
        upload.join()


# ---- what strangers and mistakes get -------------------------------------------------------------

NAN = json.dumps(fields(keypoints=[[float("nan")] * 2] * 18)).encode()
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
TRAVERSAL = "../../../../etc/passwd"
BAD = [
    ("zip bomb", "POST", "/photo?name=a.png", png(9_000, 9_000),
     "a.png has 9000 x 9000 pixels; at most"),
    ("larger bomb", "POST", "/pose?name=a.png", png(30_000, 30_000), "could be decompression bomb"),
    ("svg", "POST", "/photo?name=a.svg", SVG, "a.svg is not a readable image"),
    ("empty", "POST", "/photo?name=a.jpg", b"", "a.jpg is empty"),
    ("half a photo", "POST", "/photo?name=a.jpg", jpeg(photo())[:3000], "a.jpg is damaged"),
    ("too large", "POST", "/photo?name=a.jpg", bytes(MAX_UPLOAD + 1), "at most 24.0 MB"),
    ("large json", "POST", "/picture", b" " * 300_000, "at most 0.3 MB"),
    ("path as name", "POST", f"/photo?name={TRAVERSAL}", SVG, "passwd is not a readable"),
    ("path as source", "POST", "/picture", json.dumps(fields(source=TRAVERSAL)).encode(),
     "there is no person '../../"),
    ("path as url", "GET", "/../../etc/passwd", b"", "there is no '/../../etc/passwd' here"),
    ("coded path", "GET", "/source/..%2f..%2fetc%2fpasswd", b"", "there is no '/source/..%2f"),
    ("path of ours", "GET", "/../demo.py", b"", "there is no '/../demo.py' here"),
    ("unknown person", "GET", "/source/999", b"", "there is no person '999'"),
    ("endless number", "POST", "/picture", json.dumps(fields(source="9" * 5000)).encode(),
     "there is no person '999"),
    ("no json", "POST", "/picture", b"{", "the request is not JSON"),
    ("nested json", "POST", "/picture", b"[" * 100_000, "the request is not JSON"),
    ("a list", "POST", "/picture", b"[]", "the request is a JSON list"),
    ("nothing", "POST", "/picture", b"{}", "there is no person 'None'"),
    ("source is a list", "POST", "/picture", json.dumps(fields(source=[1])).encode(), "'[1]'"),
    ("nan", "POST", "/picture", NAN, "18 finite (y, x) pairs"),
    ("17 joints", "POST", "/picture", json.dumps(fields(keypoints=[[1, 2]] * 17)).encode(),
     "have the shape (17, 2)"),
    ("words", "POST", "/picture", json.dumps(fields(keypoints=[["a"]])).encode(),
     "the pose: keypoints are not a table of numbers"),
    ("no joint", "POST", "/picture", json.dumps(fields(keypoints=[[-1, -1]] * 18)).encode(),
     "the pose has no joint"),
    ("far away", "POST", "/picture", json.dumps(fields(keypoints=[[1e300, 5]] * 18)).encode(),
     "the pose has a joint at 1e+300"),
    ("point outside", "POST", "/origin", json.dumps(fields(point=[256, 5])).encode(),
     "the point [256, 5] lies outside the picture"),
    ("point of words", "POST", "/origin", json.dumps(fields(point="ab")).encode(),
     "the point ab lies outside"),
    ("pose file of nobody", "POST", "/pose?name=p.json", b'{"people": []}', "holds no person"),
    ("pose file without joints", "POST", "/pose?name=p.json",
     b'{"people": [{"pose_keypoints_2d": [' + b"0," * 53 + b"0]}]}", "p.json holds no person"),
    ("crop of a sample", "POST", "/source/0/crop", b"{}", "only an own photo is cropped"),
    ("wrong method", "POST", "/start", b"{}", "POST is not possible here"),
    ("delete", "DELETE", "/picture", b"", "DELETE is not possible here"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path", "body", "words"), [b[1:] for b in BAD],
                         ids=[b[0] for b in BAD])  # fmt: skip
def test_a_mistake_is_one_sentence_and_the_server_stays_up(demo, method, path, body, words):
    status, sentence = demo.refused(method, path, body)
    assert 400 <= status < 500
    assert words in sentence
    assert "\n" not in sentence
    assert demo.ask("GET", "/")[0] == 200


FOREIGN = {
    "another origin": {"Origin": "http://evil.example"},
    "no origin": {"Origin": "null"},
    "another port": {"Origin": "http://127.0.0.1:1"},
    "an embedded picture": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    "a name that points here": {"Host": "evil.example"},
    "a name that begins like ours": {"Host": "127.0.0.1.evil.example"},
    "a broken name": {"Host": "[::1"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("path", ["/", "/start", "/source/0/picture"])
def test_other_pages_and_other_names_are_refused(demo, path, headers):
    status, sentence = demo.refused("GET", path, headers=headers)
    assert status == 403
    assert "this page is found under" in sentence or "only the page of" in sentence


def test_a_click_on_a_link_elsewhere_opens_the_page_but_fetches_nothing_else(demo):
    click = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert demo.ask("GET", "/", headers=click)[0] == 200
    assert demo.ask("GET", "/start", headers=click)[0] == 403
    assert demo.ask("GET", "/", headers=click | {"Host": "evil.example"})[0] == 403


def test_the_page_is_not_found_by_an_address_of_the_network(demo):
    assert demo.server.url == f"http://127.0.0.1:{demo.server.port}/"
    assert "'192.168.7.5'" in demo.server.refusal("192.168.7.5", None, None)
    for host in ("localhost", "127.0.0.1:8097", "[::1]:9"):  # behind ssh -L the port is another
        assert demo.server.refusal(host, f"http://{host}", "same-origin") is None


def test_more_pictures_than_can_wait_are_refused_at_once(demo, monkeypatch):
    leave = threading.Event()
    monkeypatch.setattr(demo.studio.transfer, "transfer", lambda *args: leave.wait(30))
    body = json.dumps(fields()).encode()
    waiting = [
        threading.Thread(target=demo.ask, args=("POST", "/picture", body))
        for _ in range(MAX_WAITING + 1)
    ]
    for thread in waiting:
        thread.start()
    while sum(thread.is_alive() for thread in waiting) > MAX_WAITING:  # one is refused at once
        time.sleep(0.01)
    assert "requests are waiting already" in demo.refused("POST", "/picture", body)[1]
    assert demo.ask("GET", "/source/0")[0] == 200  # other calls do not wait
    leave.set()
    for thread in waiting:
        thread.join()


def test_the_page_may_load_nothing_from_elsewhere_and_be_framed_by_nobody(demo):
    for path in ("/", "/page.js", "/start"):
        headers = demo.ask("GET", path)[1]
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers
    for path in PAGE.iterdir():
        assert "http://" not in path.read_text().replace("http://www.w3.org/", "")
        assert "https://" not in path.read_text()


def test_an_unexpected_error_is_a_sentence_too(demo, monkeypatch, capsys):
    def broken(*args):
        raise RuntimeError("a bug")

    monkeypatch.setattr(demo.studio.transfer, "transfer", broken)
    status, sentence = demo.refused("POST", "/picture", json.dumps(fields()).encode())
    assert status == 500
    assert "an unexpected error (RuntimeError: a bug)" in sentence


def test_a_body_that_is_cut_off_or_malformed_leaves_the_server_up(demo: Served):
    for start in (
        b"POST /picture HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n{",
        b"POST /picture HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /picture HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0\0\0\0",
    ):
        demo.send(start)
        assert demo.ask("GET", "/")[0] == 200


# ---- the command ---------------------------------------------------------------------------------


def parsed(*words: str):
    return build_parser().parse(["--device", "cpu", *words])


def test_a_run_without_its_data_set_shows_synthetic_people(tmp_path, capsys):
    run = make_run(tmp_path / "run", "dptn", dataroot=str(tmp_path / "gone"))
    server = build_server(parsed("--checkpoint", str(run), "--port", "0"))
    assert "synthetic people are shown, for --dataroot" in capsys.readouterr().out
    server.run(lambda url: server.stop())


def test_a_data_set_that_was_asked_for_must_be_there(tmp_path):
    run = make_run(tmp_path / "run", "dptn")
    with pytest.raises(UserError, match="gone: no such folder"):
        build_server(parsed("--checkpoint", str(run), "--dataroot", str(tmp_path / "gone")))


def test_a_port_in_use_is_a_sentence(tmp_path, demo):
    run = make_run(tmp_path / "run", "dptn")
    port = str(demo.server.port)
    with pytest.raises(UserError, match=rf"--port {port} cannot be listened on .*in use"):
        build_server(parsed("--checkpoint", str(run), "--port", port))


def test_the_command_serves_on_loopback_until_ctrl_c(tmp_path):
    run, port = make_run(tmp_path / "run", "dptn"), free_port()
    words = ["--checkpoint", str(run), "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "script.demo", *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # a shell ignores Ctrl-C in what it starts in the background, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert f"open http://127.0.0.1:{port}/ in a browser" in lines[-1]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/")
        assert b"Pose it yourself" in connection.getresponse().read()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert process.stderr.read().strip().splitlines()[-1:] in ([], ["interrupted"])
    finally:
        process.kill()
        process.wait()
