"""The animate command: poses of files, folders and videos become films of one person."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from api import PoseTransfer
from data.synthetic.pose import MOVEMENTS
from script import animate, make_poses
from tests.photo_helpers import (
    StickFigureEstimator,
    make_run,
    person,
    photo,
    photo_keypoints,
    standing,
)
from util.errors import UserError
from util.person.crop import movement_to_frame
from util.person.motion import between, retarget
from util.show.grid import write_gif, write_mp4
from util.skeleton import present
from util.tables.patn import write_keypoints
from util.tables.poses import pose_text, read_poses

ESTIMATOR = "tests.photo_helpers:StickFigureEstimator"
FRAME = (256, 176)
WALK = np.stack([standing(30, 20 + 2 * i, 190, 100) for i in range(5)])


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", "dptn")


@pytest.fixture
def command(run_folder, tmp_path, monkeypatch):
    """The command in a folder with me.png and walk.json; returns the frames that were written."""
    monkeypatch.chdir(tmp_path)
    photo((300, 400), 1).save("me.png")
    (tmp_path / "walk.json").write_text(pose_text(WALK, FRAME, fps=10))
    seen = []
    for name, write in animate.WRITERS.items():

        def spy(path, frames, fps, plays, write=write):
            frames = list(frames)
            seen.append((frames, fps, plays))
            write(path, iter(frames), fps, plays)

        monkeypatch.setitem(animate.WRITERS, name, spy)

    def run(*words: str, output: str = "out.gif", estimator: str = ESTIMATOR):
        animate.main([
            "--source", "me.png", "--checkpoint", str(run_folder), "--device", "cpu",
            "--estimator", estimator, "-o", output, *words,
        ])  # fmt: skip
        return seen.pop()

    return run


def api_frames(run_folder, poses: np.ndarray) -> list[np.ndarray]:
    """What the API makes of poses that are ready."""
    model = animate.load(animate.build_parser().parse(
        ["--source", "me.png", "-o", "x.gif", "--checkpoint", str(run_folder)]), "cpu")  # fmt: skip
    source = animate.read_source(
        animate.build_parser().parse(["--source", "me.png", "-o", "x.gif"]),
        animate.PersonFinder(StickFigureEstimator()), FRAME)  # fmt: skip
    poses = retarget(poses, source.keypoints, FRAME)
    own = source.keypoints
    return [np.asarray(p) for p in model.animate(source.picture, poses, own, retarget=False)]


def test_a_sequence_becomes_a_gif_of_the_source_in_every_pose(command, run_folder, capsys):
    frames, fps, plays = command("--poses", "walk.json")
    assert (fps, plays) == (10, 0)
    assert np.array_equal(frames, api_frames(run_folder, WALK))
    film = Image.open("out.gif")
    assert (film.n_frames, film.size, film.info["loop"]) == (5, (176, 256), 0)
    assert "wrote out.gif: 5 frames, 10 a second" in capsys.readouterr().out


def test_side_by_side_pingpong_and_the_rate_of_pictures(command):
    frames, fps, plays = command(
        "--poses", "walk.json", "--side_by_side", "--pingpong", "--fps", "25", "--loop", "2",
        output="out.mp4",
    )  # fmt: skip
    assert (len(frames), fps, plays) == (8, 25, 2)
    assert frames[0].shape == (256, 3 * 176 + 8, 3)
    assert np.array_equal(frames[1], frames[7])
    video = cv2.VideoCapture("out.mp4")
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 8
    assert video.get(cv2.CAP_PROP_FPS) == 25
    assert video.read()[1].shape == (256, 536, 3)


def test_poses_that_come_faster_than_a_gif_can_show_are_slowed_down_and_that_is_said(
    command, tmp_path, capsys
):
    (tmp_path / "walk.json").write_text(pose_text(WALK, FRAME, fps=120))
    assert command("--poses", "walk.json")[1] == 50
    assert "120 a second, of which a .gif file shows 50" in capsys.readouterr().out
    assert Image.open("out.gif").info["duration"] == 20
    assert command("--poses", "walk.json", output="out.mp4")[1] == 120
    assert command("--poses", "walk.json", "--fps", "1000", output="sheet.png")[1] == 1000


def test_a_folder_of_one_sequence_is_that_sequence(command, tmp_path):
    (tmp_path / "poses").mkdir()
    (tmp_path / "walk.json").rename(tmp_path / "poses" / "walk.json")
    assert len(command("--poses", "poses")[0]) == 5


def test_a_contact_sheet_shows_every_frame(command):
    command("--poses", "walk.json", output="sheet.png")
    assert Image.open("sheet.png").size == (5 * 176 + 4 * 4, 256)


def write_video(path: str, count: int, size=(200, 300)) -> None:
    frames = [np.asarray(photo(size, 3)) for _ in range(count)]
    write_mp4(animate.Path(path), frames, 20, 0)


def test_poses_are_read_from_videos_folders_and_tables(command, tmp_path):
    write_video("friend.mp4", 6)
    (tmp_path / "photos").mkdir()
    (tmp_path / "json").mkdir()
    for i in range(3):
        photo((200, 300), 3).save(f"photos/{i}.png")
        flat = [v for y, x in photo_keypoints((200, 300)) for v in (x, y, 1.0)]
        people = [] if i == 1 else [{"pose_keypoints_2d": flat}]
        (tmp_path / "json" / f"f_{i}_keypoints.json").write_text(json.dumps({"people": people}))
    write_keypoints("table.csv", {f"{i}.jpg": points for i, points in enumerate(WALK)})
    by_video, fps, _ = command("--poses", "friend.mp4")
    assert (len(by_video), fps) == (6, 20)
    by_photos, fps, _ = command("--poses", "photos")
    assert (len(by_photos), fps) == (3, animate.FPS)
    by_json, _, _ = command("--poses", "json")  # nobody in the middle: the pose is held
    assert np.array_equal(by_photos, by_json)
    assert np.array_equal(by_video[:3], by_photos)
    by_table, _, _ = command("--poses", "table.csv")
    by_sequence, _, _ = command("--poses", "walk.json")
    assert np.array_equal(by_table, by_sequence)


def test_between_two_poses_the_limbs_turn(command, run_folder, tmp_path):
    for name, pose in (("a.json", WALK[0]), ("b.json", WALK[4])):
        (tmp_path / name).write_text(pose_text(pose, FRAME))
    frames, _, _ = command("--between", "a.json", "b.json", "--frames", "7")
    way = between(WALK[0], WALK[4], 7)
    assert np.array_equal(frames, api_frames(run_folder, way))


class TremblingEstimator:
    """Finds the joints two pixels beside their places, each time elsewhere."""

    rng = np.random.default_rng(0)

    def estimate(self, image):
        points = photo_keypoints(image.size)
        return [person(points + self.rng.normal(0, 2, points.shape))]


def trembling(poses: np.ndarray) -> float:
    return float(np.abs(np.diff(poses, 2, axis=0)).mean())


def test_estimated_poses_are_smoothed_unless_it_is_switched_off(command, monkeypatch):
    write_video("friend.mp4", 30)
    used = []
    monkeypatch.setattr(animate, "retarget", lambda poses, *rest: used.append(poses) or poses)
    for words in ((), ("--smooth", "0")):
        command("--poses", "friend.mp4", *words,
                estimator="tests.test_animate:TremblingEstimator")  # fmt: skip
    assert trembling(used[0]) < 0.4 * trembling(used[1])


def test_without_retargeting_the_poses_are_taken_as_they_are(command, monkeypatch):
    def refuse(*arguments):
        raise AssertionError

    monkeypatch.setattr(animate, "retarget", refuse)
    frames, _, _ = command("--poses", "walk.json", "--no_retarget")
    assert len(frames) == 5


class NobodyEstimator:
    def estimate(self, image):
        return []


def text(name: str, content: str) -> str:
    with open(name, "w") as stream:
        stream.write(content)
    return name


def folder(name: str, **files: str) -> str:
    animate.Path(name).mkdir()
    for file, content in files.items():
        text(f"{name}/{file}.json", content)
    return name


def video(count: int) -> str:
    write_video("friend.mp4", count)
    return "friend.mp4"


NOBODY = pose_text(np.full((3, 18, 2), -1.0), FRAME, 10)
ONE = pose_text(WALK[:1], FRAME, 10)
WALK_TEXT = pose_text(WALK, FRAME, 10)
PIXELS = json.dumps(
    {"people": [{"pose_keypoints_2d": [v for i in range(18) for v in (9 + i, 9, 1)]}]}
)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ["--poses", text("empty.mp4", "")], "no video that OpenCV can read, or an empty"),
        (lambda: ["--poses", text("text.mp4", "hello" * 99)], "no video that OpenCV can read"),
        (lambda: ["--poses", "none.mp4"], "no such video"),
        (lambda: ["--poses", video(1)], "found one pose; expected at least two"),
        (lambda: ["--poses", video(2), "--estimator", "tests.test_animate:NobodyEstimator",
                  "--source_keypoints", text("own.json", PIXELS)], "nobody was found in any"),
        (lambda: ["--poses", text("n.json", NOBODY)], "holds no person"),
        (lambda: ["--poses", text("one.json", ONE)], "found one pose"),
        (lambda: ["--poses", text("x.json", '{"frames": [[[NaN, 1]]]}')], "one is NaN"),
        (lambda: ["--poses", text("x.json", '{"fps": 1e9, "frames": []}')], '"fps" is'),
        (lambda: ["--poses", text("x.json", "[1, 2")], "is not a JSON file"),
        (lambda: ["--poses", text("x.txt", "hi")], r"x\.txt: unknown kind of file"),
        (lambda: ["--poses", "nowhere"], "nowhere: no such file; expected a folder"),
        (lambda: ["--poses", folder("void")], "holds no pictures"),
        (lambda: ["--poses", folder("dir", a=NOBODY, b=NOBODY)], "nobody is in any of its"),
        (lambda: ["--poses", folder("mix", a=ONE, b=PIXELS)], "some poses are in pixels"),
        (lambda: ["--poses", folder("bad", a=ONE, b="{")], "b.json is not a JSON file"),
        (lambda: [], "expected either --poses P or --between A B"),
        (lambda: ["--poses", "walk.json", "--between", "me.png", "me.png"], "expected either"),
        (lambda: ["--between", "me.png", "none.png"], r"none\.png: no such image"),
        (lambda: ["--between", "me.png", "me.png", "--frames", "1"], "a whole number, 2 to"),
        (lambda: ["--between", "me.png", "me.png", "--frames", "2001"], "too many for a .gif file"),
        (lambda: ["--poses", folder("two", a=WALK_TEXT, b=ONE)],
         "a.json is a sequence of 5 poses, one of 2 pose files; .* --poses two/a.json"),
        (lambda: ["--poses", folder("none", a='{"frame": [0, 0], "people": []}')],
         r'"frame" is \[0, 0\]; expected \[height, width\], each 1 or more'),
        (lambda: ["--poses", "walk.json", "--fps", "0"], "0.01 to 1000"),
        (lambda: ["--poses", "walk.json", "--fps", "1000"],
         "a .gif file shows at most 50 pictures a second; use --fps 50, or write an .mp4"),
        (lambda: ["--poses", "walk.json", "--smooth", "nan"], "a finite number"),
        (lambda: ["--poses", "walk.json", "-o", "out.webm"], r"ends in \.gif, \.mp4, \.png"),
        (lambda: ["--poses", "walk.json", "-o", "me.png"], "would replace me.png, which is read"),
        (lambda: ["--poses", "walk.json", "-o", "me.png/x.gif"], "me.png is a file"),
        (lambda: ["--poses", "walk.json", "--source", "none.jpg"], r"none\.jpg: no such image"),
        (lambda: ["--poses", "walk.json", "--source", "walk.json"], "is not a readable image"),
        (lambda: ["--poses", "walk.json", "--checkpoint", "nowhere"], "there is no checkpoint"),
        (lambda: ["--poses", "walk.json", "--pose", "x"], "unknown option --pose"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_nothing_is_written(command, tmp_path, make, message):
    words = make()
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(UserError, match=message) as caught:
        command(*words)
    assert "\n" not in str(caught.value)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_gif_has_one_palette_and_keeps_time(tmp_path):
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (20, 30, 3), dtype=np.uint8) // 64 * 64 for _ in range(130)]
    write_gif(tmp_path / "x.gif", iter(frames), 24, 3)
    film = Image.open(tmp_path / "x.gif")
    assert film.n_frames == 130
    assert film.info["loop"] == 2  # twice more
    times = []
    for number, frame in enumerate(frames):
        film.seek(number)
        times.append(film.info["duration"])
        found = np.asarray(film.convert("RGB")).astype(int)
        assert np.abs(found - frame).max() <= 40
    assert sum(times) == pytest.approx(130 / 24 * 1000, abs=10)
    data = (tmp_path / "x.gif").read_bytes()
    assert data.count(b"\x00\x00\x00\x00\x1e\x00\x14\x00\x80") == 0  # no local colour table


@pytest.mark.parametrize("movement", MOVEMENTS)
def test_movements_are_loops_inside_the_frame(movement, tmp_path, capsys):
    make_poses.main(["-o", str(tmp_path), "--movements", movement, "--frames", "48"])
    poses = read_poses(tmp_path / f"{movement}.json")
    assert (len(poses), poses[0].fps, poses[0].frame) == (48, 12, FRAME)
    points = np.stack([pose.keypoints for pose in poses])
    assert present(points)[:, 1:14].all()
    for axis, side in enumerate(FRAME):
        seen = points[..., axis][present(points)]
        assert seen.min() >= 0
        assert seen.max() < side
    steps = np.abs(np.diff(points[:, 1:14], axis=0, append=points[:1, 1:14])).max(axis=(1, 2))
    assert steps[-1] <= 1.2 * steps.max()
    assert steps.max() > 1
    assert "48 poses, 12 a second" in capsys.readouterr().out


def test_one_movement_may_be_written_to_a_file_that_is_named(tmp_path):
    named = tmp_path / "new" / "stroll.json"
    make_poses.main(["-o", str(tmp_path), "--movements", "walk"])
    make_poses.main(["-o", str(named), "--movements", "walk"])
    assert named.read_bytes() == (tmp_path / "walk.json").read_bytes()
    with pytest.raises(UserError, match=r"one file cannot hold 2 movements \(walk, sit\)"):
        make_poses.main(["-o", str(named), "--movements", "walk", "sit"])


def test_the_movements_are_what_their_names_say(tmp_path):
    make_poses.main(["-o", str(tmp_path)])
    walk, wave, turn, sit = (
        np.stack([p.keypoints for p in read_poses(tmp_path / f"{name}.json")])
        for name in ("walk", "wave", "turn", "sit")
    )
    feet = walk[:, 10, 1] - walk[:, 13, 1]
    assert feet.max() > 15
    assert feet.min() < -15  # either foot is in front
    assert (wave[8:16, 4, 0] < wave[8:16, 2, 0]).all()  # the right hand above its shoulder
    assert wave[0, 4, 0] > wave[0, 8, 0] - 40
    widths = turn[:, 5, 1] - turn[:, 2, 1]
    assert widths[0] > 20
    assert widths[12] < -20  # the back
    hips = sit[:, 8, 0]
    assert hips[12] > hips[0] + 20


def test_a_person_who_walks_through_a_video_is_followed():
    walk = np.stack([standing(100, 20 + 20 * i, 200, 100) for i in range(60)])
    walk[3, 4] = -1
    walk[20:22] = -1
    moved = movement_to_frame(walk, FRAME, fps=12)
    assert np.array_equal(present(moved), present(walk))
    seen = moved[present(moved)]
    assert (seen > -20).all()
    assert (seen < np.array(FRAME) + 20).all()
    still = movement_to_frame(walk[:2], FRAME, fps=12)
    np.testing.assert_allclose(still[1] - still[0], (still[1] - still[0])[:1].repeat(18, 0))


def test_frames_are_made_a_batch_at_a_time_as_they_are_written(command, monkeypatch):
    alive = []

    def first_frame_only(path, frames, fps, plays):
        frames = iter(frames)
        alive.append(next(frames))

    monkeypatch.setitem(animate.WRITERS, ".mp4", first_frame_only)
    made = []
    generate = PoseTransfer._generate
    monkeypatch.setattr(
        PoseTransfer, "_generate",
        lambda self, batch: made.append(len(batch["source_name"])) or generate(self, batch),
    )  # fmt: skip
    with pytest.raises(IndexError):  # nothing was handed to the spy
        command("--between", "me.png", "me.png", "--frames", "10000", "--batch_size", "4",
                output="out.mp4")  # fmt: skip
    assert made == [4]
