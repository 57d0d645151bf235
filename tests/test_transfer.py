"""The transfer command: photos in, a picture or a strip out, refusals in words."""

import json

import numpy as np
import pytest
from PIL import Image

from script import transfer
from tests.photo_helpers import StickFigureEstimator, make_run, photo, photo_keypoints, standing
from util.errors import UserError
from util.keypoint_formats import JOINT_SETS
from util.tables.patn import write_keypoints

ESTIMATOR = "tests.photo_helpers:StickFigureEstimator"
FRAME = (256, 176)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "run", "dptn")


@pytest.fixture
def command(run_folder, tmp_path, monkeypatch):
    """The command in a folder with me.png and friend.png; returns the pictures it writes."""
    monkeypatch.chdir(tmp_path)
    photo((300, 400), 1).save("me.png")
    photo((600, 500), 2).save("friend.png")

    def run(*words: str, output: str = "out.png", estimator: str = ESTIMATOR):
        transfer.main([
            "--source", "me.png", "--checkpoint", str(run_folder), "--device", "cpu",
            "--estimator", estimator, "-o", output, *words,
        ])  # fmt: skip
        stem = output.rpartition(".")[0]
        return [np.asarray(Image.open(name)) for name in (output, f"{stem}_skeletons.png")]

    return run


def openpose_json(points: np.ndarray) -> dict:
    flat = [v for y, x in points for v in ((0, 0, 0) if y == -1 else (x, y, 0.9))]
    return {"people": [{"pose_keypoints_2d": flat}]}


def test_one_pose_gives_the_photo_with_the_person_pasted_in(command, capsys):
    out, skeletons = command("--pose", "friend.png")
    before = np.asarray(Image.open("me.png"))
    assert out.shape == before.shape
    changed = (out != before).any(axis=2)
    assert changed.any()
    assert not changed[:, :5].any()  # beside the person nothing changes
    assert skeletons.shape == (2 * 256 + 4, 2 * 176 + 4, 3)
    assert "wrote out.png, and out_skeletons.png" in capsys.readouterr().out


def test_the_person_is_pasted_by_a_mask_unless_that_is_switched_off(command):
    Image.effect_noise((300, 400), 90).convert("RGB").save("noise.png")
    scene = np.asarray(Image.open("noise.png"))
    Image.fromarray(scene).save("me.png")
    masked, _ = command("--pose", "friend.png")
    rectangle, _ = command("--pose", "friend.png", "--mask", "none", output="rectangle.png")
    unchanged = [(out == scene).all(axis=2).mean() for out in (masked, rectangle)]
    assert unchanged[0] > unchanged[1] + 0.1
    with pytest.raises(UserError, match="no such file; expected torchvision's maskrcnn_resnet50"):
        command("--pose", "friend.png", "--mask", "maskrcnn", "--mask_weights", "none.pth")


def test_the_skeleton_picture_shows_both_poses_above_and_source_and_result_below(command):
    _, skeletons = command("--pose", "friend.png")
    tile = (
        skeletons[:256, :176],
        skeletons[:256, 180:],
        skeletons[260:, :176],
        skeletons[260:, 180:],
    )
    source = transfer.subject_of_photo("me.png", finder(), FRAME, "person")
    friend = transfer.subject_of_photo("friend.png", finder(), FRAME, "person")
    assert np.array_equal(tile[0], source.tile(FRAME, skeleton=True))
    assert np.array_equal(tile[1], friend.tile(FRAME, skeleton=True))
    assert np.array_equal(tile[2], source.tile(FRAME, skeleton=False))
    assert not np.array_equal(tile[3], tile[2])


def finder():
    return transfer.PersonFinder(StickFigureEstimator())


def test_without_cropping_the_result_is_that_of_the_api(command, run_folder):
    _, skeletons = command("--pose", "friend.png", "--crop", "none")
    api = transfer.PoseTransfer.from_checkpoint(run_folder, device="cpu")
    api.find_person = finder()
    assert np.array_equal(skeletons[260:, 180:], api.transfer_as("me.png", "friend.png"))


def test_several_poses_and_folders_make_a_strip(command, tmp_path):
    (tmp_path / "poses" / "more").mkdir(parents=True)
    for seed, name in enumerate(("b.png", "a.jpg", "more/c.png")):
        photo((200 + 20 * seed, 300), seed).save(tmp_path / "poses" / name)
    out, skeletons = command("--pose", "poses", "friend.png")
    assert out.shape == (256, 5 * 176 + 4 * 4, 3)
    assert skeletons.shape == (2 * 256 + 4, 5 * 176 + 4 * 4, 3)
    single, _ = command("--pose", "friend.png", "me.png", output="two.png")
    assert np.array_equal(out[:, -176:], single[:, 180:356])  # friend.png in both strips


@pytest.mark.parametrize("joints", [18, 25])
def test_a_json_pose_is_framed_like_the_photo_it_comes_from(command, joints):
    points = photo_keypoints((600, 500))
    if joints == 25:
        from util.skeleton import JOINTS

        places = [JOINTS.index(j) if j in JOINTS else None for j in JOINT_SETS["body25"]]
        points = np.array([(-1, -1) if i is None else points[i] for i in places])
    with open("pose.json", "w") as stream:
        json.dump(openpose_json(points), stream)
    expected, _ = command("--pose", "friend.png")
    out, skeletons = command("--pose", "pose.json", output="from_json.png")
    assert np.array_equal(out, expected)
    assert (skeletons[:256, 180:] == transfer.BACKDROP).all(axis=2).mean() > 0.5


def test_csv_rows_are_used_as_they_are(command, run_folder):
    table = {"p0.jpg": standing(10, 20, 230, 120), "p1.jpg": standing(30, 30, 180, 110)}
    write_keypoints("poses.csv", table)
    out, _ = command("--pose", "poses.csv", "--crop", "none")
    api = transfer.PoseTransfer.from_checkpoint(run_folder, device="cpu")
    api.find_person = finder()
    own = api.estimate_keypoints("me.png")
    expected = api.transfer("me.png", table["p1.jpg"], own)
    assert np.array_equal(out[:, -176:], expected)


def test_source_keypoints_replace_the_estimator(command):
    expected, _ = command("--pose", "friend.png")
    with open("me.json", "w") as stream:
        json.dump(openpose_json(photo_keypoints((300, 400))), stream)
    with open("friend.json", "w") as stream:
        json.dump(openpose_json(photo_keypoints((600, 500))), stream)
    words = "--source_keypoints", "me.json", "--pose", "friend.json"
    out, _ = command(*words, output="given.png", estimator="no:estimator")
    assert np.array_equal(out, expected)


def test_source_keypoints_may_be_the_row_of_the_photo_in_its_data_sets_table(command):
    own = photo_keypoints((352, 512))
    photo((352, 512), 1).save("me.png")  # twice the frame of the table
    with open("me.json", "w") as stream:
        json.dump(openpose_json(own), stream)
    few = np.full((18, 2), -1.0)
    write_keypoints("table.csv", {"other.png": few, "me.png": np.where(own == -1, -1, own / 2)})
    words = "--pose", "friend.png", "--source_keypoints"
    expected, _ = command(*words, "me.json")
    out, _ = command(*words, "table.csv", output="row.png")
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("output", ["folder/new/out.jpg", "out.jpeg", "out.png"])
def test_the_output_is_written_where_it_was_asked_for(command, output):
    out, _ = command("--pose", "friend.png", output=output)
    assert out.shape == (400, 300, 3)


def test_a_photo_without_colours_stays_without_and_the_command_says_so(command, capsys):
    Image.open("me.png").convert("L").save("me.png")
    for out in command("--pose", "friend.png", "friend.png"):
        right = out[-256:, -176:].astype(int)
        assert (np.ptp(right, axis=2) == 0).all()
    assert "note: the photo has no colours, so the result has none" in capsys.readouterr().out


def test_a_generator_of_tiny_pictures_says_what_to_expect(command, capsys):
    command("--pose", "friend.png")  # the tests' run is of 64 x 64 pixels
    said = capsys.readouterr().out
    assert "note: this generator was trained on pictures of 64 x 64 pixels: expect little" in said


def test_retargeted_poses_have_the_limbs_of_the_source(command, run_folder):
    child = {"p.jpg": standing(100, 60, 110, 60)}
    write_keypoints("child.csv", child)
    out, _ = command("--pose", "child.csv", "child.csv", "--crop", "none", "--retarget")
    api = transfer.PoseTransfer.from_checkpoint(run_folder, device="cpu")
    api.find_person = finder()
    own = api.estimate_keypoints("me.png")
    expected = api.transfer("me.png", child["p.jpg"], own, retarget=True)
    assert np.array_equal(out[:, -176:], expected)


class NobodyEstimator:
    def estimate(self, image):
        return []


class HalfEstimator:
    """Sees the head and one arm."""

    def estimate(self, image):
        (person,) = StickFigureEstimator().estimate(image)
        person.keypoints[5:14] = -1
        person.keypoints[15:] = -1
        person.scores[5:14] = 0
        return [person]


def save_gif():
    frames = [Image.new("RGB", (60, 60), (90 * i, 0, 0)) for i in range(3)]
    frames[0].save("friend.gif", save_all=True, append_images=frames[1:])
    return "friend.gif"


def save(name: str, image: Image.Image) -> str:
    image.save(name)
    return name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (save_gif, r"friend\.gif is animated \(3 frames\)"),
        (lambda: save("dot.png", Image.new("RGB", (1, 1))), r"dot\.png is 1 x 1 pixels"),
        (lambda: save("big.png", Image.new("1", (8000, 5000))), r"big\.png has 8000 x 5000 pixels"),
        (lambda: "none.png", r"none\.png: no such image"),
    ],
)
@pytest.mark.parametrize("role", ["--source", "--pose"])
def test_unusable_pictures_are_one_sentence(command, tmp_path, make, message, role):
    words = ["--pose", "friend.png", role, make()]
    with pytest.raises(UserError, match=message) as caught:
        command(*words)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.png").exists()


def test_a_missing_pose_file_is_one_sentence(command):
    with pytest.raises(UserError, match=r"none\.json: no such file; expected keypoints"):
        command("--pose", "none.json")


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        ("NobodyEstimator", r"me\.png: no person was found"),
        ("HalfEstimator", r"me\.png: only 6 of 18 joints were found, at least 8 are needed"),
    ],
)
def test_nobody_and_too_few_joints_are_one_sentence(command, tmp_path, estimator, message):
    words = ("--pose", "friend.png", "--min_joints", "8")
    with pytest.raises(UserError, match=message):
        command(*words, estimator=f"tests.test_transfer:{estimator}")
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("role", ["--pose", "--source_keypoints"])
@pytest.mark.parametrize("joints", [0, 4])
def test_too_few_joints_in_a_file_are_one_sentence_that_names_it(command, tmp_path, role, joints):
    points = photo_keypoints((300, 400))
    points[joints:] = -1
    (tmp_path / "few.json").write_text(json.dumps(openpose_json(points)))
    message = rf"few\.json, few_0: only {joints} of 18 joints" if joints else "holds no person"
    with pytest.raises(UserError, match=message):
        command("--pose", "friend.png", role, "few.json")
    if joints:
        command("--pose", "friend.png", role, "few.json", "--min_joints", "3")


@pytest.mark.parametrize("output", ["me.png", "./friend.png", "poses/new.png", "x.png"])
def test_a_picture_that_is_read_is_never_replaced(command, tmp_path, output):
    (tmp_path / "poses" / "more").mkdir(parents=True)
    photo().save(tmp_path / "poses" / "a.png")
    photo().save(tmp_path / "x_skeletons.png")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.png")}
    with pytest.raises(UserError, match=r"is read; choose another name|choose a place outside"):
        command("--pose", "friend.png", "poses", "x_skeletons.png", output=output)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*.png")} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pose", "friend.png", "--output", "out.webp"), r"expected a name that ends in \.png"),
        (("--pose", "friend.png", "--output", "me.png/out.png"), r"me\.png is a file"),
        (("--pose", "friend.png", "--output", "dir.png"), "it is a folder"),
        (
            ("--pose", "friend.png", "--person", "tallest"),
            "--person: found tallest, expected one of best, first",
        ),
        (("--pose", "friend.png", "--poses", "x"), "unknown option --poses; did you mean --pose"),
        (("--pose", "friend.png", "--checkpoint", "nowhere"), "there is no checkpoint"),
        (("--pose", "friend.png", "--source_keypoints", "two.csv"), "is named me.png; expected"),
    ],
)
def test_mistakes_on_the_command_line_are_one_sentence(command, tmp_path, words, message):
    write_keypoints("two.csv", {"a": standing(0, 0, 200, 100), "b": standing(0, 0, 100, 100)})
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(UserError, match=message):
        command(*words)


def test_the_published_generator_is_asked_for_by_name(command, monkeypatch, run_folder):
    asked = []

    def find(file):
        asked.append(file.name)
        raise UserError("not here")

    monkeypatch.setattr(transfer, "find_weights", find)
    with pytest.raises(UserError, match="not here"):
        command("--pose", "friend.png", "--checkpoint", "magpt")
    assert asked == ["pose_transfer_coco_keypoints_deepfashion_netG_iter_260500.pth"]
