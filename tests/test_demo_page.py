"""The demo's page in a real browser: mouse, fingers and keys, and what comes of them."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tests.browser import Browser, needs_chromium
from tests.demo_helpers import Served, served, studio_of
from tests.live_page import LivePage
from tests.photo_helpers import StickFigureEstimator, joint, make_run, photo
from util.person.motion import retarget
from util.tables.poses import poses_in

pytestmark = needs_chromium
WRIST, ELBOW, SHOULDER, ANKLE = (
    joint(f"right {name}") for name in ("wrist", "elbow", "shoulder", "ankle")
)
CTRL, SHIFT = 2, 8


@pytest.fixture(scope="module")
def demo(tmp_path_factory, people):
    run = make_run(tmp_path_factory.mktemp("runs") / "dptn", "dptn")
    with served(studio_of(run, people, StickFigureEstimator())) as made:
        yield made


@pytest.fixture(scope="module")
def browser():
    with Browser() as made:
        yield made


class Demo(LivePage):
    """The page, its first picture there."""

    def __init__(self, browser: Browser, demo: Served, **settings):
        super().__init__(browser, demo.server.url, **settings)
        self.demo = demo
        self.wait("document.querySelectorAll('#poses .tile').length == 6")
        self.settle()

    def asked(self) -> dict:
        """What the picture on the page was asked for."""
        return json.loads(self.value("document.getElementById('result').dataset.asked || 'null'"))

    def pose(self) -> np.ndarray:
        """Places of the joints of the skeleton on the page, (18, 2) as (y, x) in the frame."""
        circles = "[...document.querySelectorAll('#pose-editor circle')]"
        return np.array(self.value(f"{circles}.map(c => [c.cy.baseVal.value, c.cx.baseVal.value])"))

    def on_screen(self, point: np.ndarray) -> tuple[float, float]:
        """Where a (y, x) of the frame is in the window."""
        box = self.value(
            "(b => [b.left, b.top, b.width, b.height])"
            "(document.getElementById('pose-editor').getBoundingClientRect())"
        )
        return box[0] + point[1] / 176 * box[2], box[1] + point[0] / 256 * box[3]

    def settle(self) -> None:
        """Until the picture on the page is that of the skeleton on the page."""
        self.wait(
            "(asked => asked && [...document.querySelectorAll('#pose-editor circle')].every((c, i)"
            " => c.classList.contains('away') == (asked.keypoints[i][0] == -1)"
            " && (asked.keypoints[i][0] == -1 ||"
            " Math.abs(c.cy.baseVal.value - asked.keypoints[i][0]) < 0.06 &&"
            " Math.abs(c.cx.baseVal.value - asked.keypoints[i][1]) < 0.06)))"
            "(JSON.parse(document.getElementById('result').dataset.asked || 'null'))"
        )

    def picture(self) -> np.ndarray:
        """The pixels of the picture on the page."""
        width, *values = self.value(
            "(c => [c.width, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data])"
            "(document.getElementById('result'))"
        )
        return np.array(values, dtype=np.uint8).reshape(-1, width, 4)[:, :, :3]

    def expected(self) -> np.ndarray:
        """What the API gives for what the page asked."""
        asked = self.asked()
        source = self.demo.studio.sample(int(asked["source"]))
        result = self.demo.studio.transfer.transfer(
            source.image, asked["keypoints"], asked["source_keypoints"], (source.name, "")
        )
        return np.asarray(result)

    def most_in_flight(self) -> tuple[int, int]:
        """How many pictures were asked for, and the most that were on their way at once."""
        under_way, most, pictures = 0, 0, set()
        for event in self.all_events():
            parameters = event["params"]
            if event["method"] == "Network.requestWillBeSent":
                request = parameters["request"]
                if request["method"] == "POST" and request["url"].endswith("/picture"):
                    pictures.add(parameters["requestId"])
                    under_way += 1
                    most = max(most, under_way)
            elif event["method"] in ("Network.loadingFinished", "Network.loadingFailed"):
                under_way -= parameters["requestId"] in pictures
        return len(pictures), most

    def sentence(self) -> str:
        """The message on the page, "" when there is none."""
        return self.value(
            "document.getElementById('alert').hidden ? ''"
            " : document.getElementById('alert-text').textContent"
        )

    def press(self, name: str) -> None:
        """Click a button by its id, in the middle, with the mouse."""
        x, y = self.value(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.left + b.width / 2, b.top + b.height / 2]; }})"
            f"(document.getElementById('{name}'))"
        )
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)


def length(pose: np.ndarray, a: int, b: int) -> float:
    return float(np.linalg.norm(pose[a] - pose[b]))


@pytest.fixture
def page(browser, demo):
    made = Demo(browser, demo)
    yield made
    made.close()


def test_dragging_a_hand_changes_the_picture_into_that_of_the_api(page):
    before, pixels = page.pose(), page.picture()
    assert np.array_equal(pixels, page.expected())
    target = before[WRIST] + (14, 9)
    page.drag(page.on_screen(before[WRIST]), page.on_screen(target))
    page.settle()
    after = page.pose()
    assert np.abs(after[WRIST] - target).max() < 1.5
    for a, b in ((SHOULDER, ELBOW), (ELBOW, WRIST)):  # the arm follows and keeps its length
        assert abs(length(after, a, b) - length(before, a, b)) < 0.01
    assert np.array_equal(after[ANKLE], before[ANKLE])
    assert not np.array_equal(page.picture(), pixels)
    assert np.array_equal(page.picture(), page.expected())


def test_shift_stretches_a_limb_and_an_elbow_takes_the_forearm_along(page):
    before = page.pose()
    page.drag(page.on_screen(before[ELBOW]), page.on_screen(before[ELBOW] + (20, -6)))
    turned = page.pose()
    for a, b in ((SHOULDER, ELBOW), (ELBOW, WRIST)):
        assert abs(length(turned, a, b) - length(before, a, b)) < 0.01
    start, end = page.on_screen(turned[WRIST]), page.on_screen(turned[WRIST] + (0, -25))
    page.mouse("mousePressed", *start, modifiers=SHIFT)
    page.mouse("mouseMoved", *end, modifiers=SHIFT)
    page.mouse("mouseReleased", *end, modifiers=SHIFT)
    stretched = page.pose()
    assert np.array_equal(stretched[ELBOW], turned[ELBOW])
    assert length(stretched, ELBOW, WRIST) > length(turned, ELBOW, WRIST) + 5


def test_of_two_hundred_quick_moves_one_picture_is_under_way_at_most(page):
    start = page.pose()[WRIST]
    page.mouse("mousePressed", *page.on_screen(start))
    for i in range(200):
        place = np.add(start, (20 * np.sin(i / 9), 15 * np.cos(i / 7) - 15))
        page.mouse("mouseMoved", *page.on_screen(place))
    page.mouse("mouseReleased", *page.on_screen(place))
    page.settle()
    count, most = page.most_in_flight()
    assert most == 1
    assert 3 < count < 200
    assert np.array_equal(page.picture(), page.expected())  # the newest pose won


def test_undo_takes_back_a_whole_drag_and_redo_brings_it_again(page):
    before, pixels = page.pose(), page.picture()
    page.drag(page.on_screen(before[WRIST]), page.on_screen(before[WRIST] + (12, 12)))
    moved = page.pose()
    page.press("undo")
    page.settle()
    assert np.array_equal(page.pose(), before)
    assert np.array_equal(page.picture(), pixels)
    page.key("z", CTRL | SHIFT)
    page.settle()
    assert np.array_equal(page.pose(), moved)


def test_a_drag_beside_the_figure_moves_it_and_the_wheel_scales_it(page):
    before = page.pose()
    page.drag(page.on_screen(np.array([250, 8])), page.on_screen(np.array([244, 16])))
    assert np.abs(page.pose() - before - (-6, 8)).max() < 0.7
    page.mouse("mouseWheel", *page.on_screen(np.array([128, 88])), deltaX=0, deltaY=80)
    page.settle()
    smaller = page.pose()
    assert 0.8 < length(smaller, SHOULDER, ANKLE) / length(before, SHOULDER, ANKLE) < 0.98


def test_a_double_click_hides_a_joint_and_its_box_brings_it_back(page):
    place = page.on_screen(page.pose()[WRIST])
    for _ in range(2):
        page.mouse("mousePressed", *place)
        page.mouse("mouseReleased", *place)
    page.settle()
    assert page.asked()["keypoints"][WRIST] == [-1, -1]
    assert np.array_equal(page.picture(), page.expected())
    page.value("document.getElementById('joints').open = true")
    page.value(f"document.querySelectorAll('#joint-list input')[{WRIST}].click()")
    page.settle()
    assert page.asked()["keypoints"][WRIST] != [-1, -1]


def test_everything_can_be_done_with_keys(page):
    before = page.pose()
    page.value(f"document.querySelectorAll('#pose-editor circle')[{WRIST}].focus()")
    page.key("ArrowDown", SHIFT)
    assert np.allclose(page.pose()[WRIST] - before[WRIST], (2, 0))
    page.key("h")
    page.settle()
    assert page.asked()["keypoints"][WRIST] == [-1, -1]
    for _ in range(2):
        page.key("z", CTRL)
    assert np.array_equal(page.pose(), before)
    page.key("m")  # mirrored: the right hand is where the left one was, seen in a mirror
    mirrored, left = page.pose(), joint("left wrist")
    middle = (before[:, 1].min() + before[:, 1].max()) / 2
    assert np.allclose(mirrored[WRIST], (before[left][0], 2 * middle - before[left][1]), atol=0.01)
    page.key("r")
    assert np.array_equal(page.pose(), before)
    page.key("s")
    page.wait("document.querySelectorAll('#kept .kept').length == 1")
    page.key("k")
    assert page.value(
        "getComputedStyle(document.querySelector('#pose-editor .limbs')).opacity == 0"
    )


def test_a_person_and_a_pose_are_chosen_from_the_thumbnails(page):
    page.value("document.querySelectorAll('#people .tile')[4].click()")
    page.wait("JSON.parse(document.getElementById('result').dataset.asked).source == '4'")
    chosen = page.value("document.querySelectorAll('#poses .tile')[2].dataset.id")
    pose = page.demo.studio.sample(int(chosen)).keypoints
    body = np.array(page.asked()["source_keypoints"])
    for fit, expected in ((True, retarget(pose, body, (256, 176)).round(1)), (False, pose)):
        page.value(f"document.getElementById('fit').checked = {json.dumps(fit)}")
        page.value("document.querySelectorAll('#poses .tile')[2].click()")
        page.wait(
            "JSON.stringify(JSON.parse(document.getElementById('result').dataset.asked).keypoints)"
            f" == JSON.stringify({json.dumps(expected.tolist())})"
        )
        assert np.array_equal(page.picture(), page.expected())


def test_correcting_the_person_s_skeleton_changes_the_picture(page):
    own = page.asked()["source_keypoints"]
    shown = [i for i, point in enumerate(own) if point != [-1, -1]]
    page.value(f"document.querySelectorAll('#source-editor circle')[{shown[2]}].focus()")
    page.key("ArrowLeft", CTRL)
    page.wait(
        f"JSON.parse(document.getElementById('result').dataset.asked).source_keypoints[{shown[2]}]"
        f"[1] == {own[shown[2]][1] - 8}"
    )
    changed = page.asked()["source_keypoints"]
    assert [i for i in range(18) if changed[i] != own[i]] == [shown[2]]
    assert np.array_equal(page.picture(), page.expected())


def test_pointing_at_the_picture_lights_up_where_it_comes_from(page):
    light = (
        "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".reduce((sum, v) => sum + v, 0))(document.getElementById('origin'))"
    )
    place = page.on_screen(page.pose()[SHOULDER] + np.array([9, 9]))
    page.mouse("mouseMoved", *place, buttons=0)
    assert page.value(light) == 0
    page.value("document.getElementById('show-origin').click()")
    page.mouse("mouseMoved", place[0] + 3, place[1], buttons=0)
    page.wait(f"{light} > 0")
    page.press("mirror")
    page.wait(f"{light} == 0")


def test_an_own_photo_becomes_the_person_and_can_be_cropped_again(page, tmp_path):
    photo((600, 400)).save(tmp_path / "me.jpg")
    page.choose_file("#photo-file", tmp_path / "me.jpg")
    page.wait("document.getElementById('source-name').textContent == 'me.jpg'")
    page.wait("JSON.parse(document.getElementById('result').dataset.asked).source[0] == 'o'")
    page.wait("document.getElementById('alert').className == 'alert info'")
    assert "expect little of it on photographs" in page.sentence()  # a generator of 64 pixels
    first = page.asked()["source"]
    page.press("crop")
    page.wait(f"JSON.parse(document.getElementById('result').dataset.asked).source != '{first}'")
    assert page.asked()["source"].startswith("own")


def test_bad_uploads_are_sentences_on_the_page_which_goes_on(page, tmp_path):
    before = page.asked()
    (tmp_path / "evil.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>")
    page.choose_file("#photo-file", tmp_path / "evil.svg")
    page.wait("document.getElementById('alert-text').textContent.startsWith('evil.svg is not a')")
    (tmp_path / "pose.json").write_text('{"people": []}')
    page.choose_file("#pose-file", tmp_path / "pose.json")
    page.wait("document.getElementById('alert-text').textContent.includes('holds no person')")
    with open(tmp_path / "large.jpg", "wb") as file:
        file.truncate(30_000_000)
    page.choose_file("#photo-file", tmp_path / "large.jpg")
    page.wait("document.getElementById('alert-text').textContent.includes('at most 24.0 MB')")
    assert page.asked() == before
    page.press("alert-close")
    page.press("mirror")
    page.settle()
    assert page.sentence() == ""
    assert np.array_equal(page.picture(), page.expected())


def test_a_server_that_has_ended_is_a_sentence(browser, demo):
    with served(demo.studio) as short:
        page = Demo(browser, short)
    page.press("mirror")
    page.wait("document.getElementById('alert-text').textContent.includes('does not answer')")
    page.close()


def test_what_is_downloaded_is_what_is_shown(page, tmp_path):
    page.download_to(tmp_path)
    for button, name in (("get-picture", "posed.png"), ("get-pair", "pair.png"), ("get-pose", "")):
        page.press(button)
        page.wait_for_file(tmp_path, name or "pose.json")
    saved = {path.name.rpartition("_")[2]: path.read_bytes() for path in tmp_path.iterdir()}
    pixels = np.asarray(Image.open(io.BytesIO(saved["posed.png"])).convert("RGB"))
    assert np.array_equal(pixels, page.expected())
    pair = Image.open(io.BytesIO(saved["pair.png"])).convert("RGB")
    assert pair.size == (2 * 176 + 8, 256)
    assert np.array_equal(np.asarray(pair)[:, -176:], page.expected())
    (pose,) = poses_in(saved["pose.json"], "pose.json")
    assert np.array_equal(pose.in_frame((256, 176)), page.asked()["keypoints"])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize(("size", "phone"), [((1400, 900), False), ((390, 844), True)])
def test_the_page_fits_and_says_nothing_to_the_console(browser, demo, size, phone, dark):
    page = Demo(browser, demo, size=size, phone=phone, dark=dark)
    assert page.problems() == []
    luminance = page.value(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)[0]"
    )
    assert (luminance < 60) == dark
    if phone:  # the picture and its tools are in the window, and a finger can drag
        assert page.value("document.getElementById('save').getBoundingClientRect().bottom") < 844
        start = page.pose()[WRIST]
        page.touch(page.on_screen(start), page.on_screen(np.add(start, (12, 8))))
        page.settle()
        assert np.abs(page.pose()[WRIST] - start - (12, 8)).max() < 2
    page.close()
