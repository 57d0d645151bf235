"""Body masks, PCKh, and the metrics that need keypoints, from files and from an estimator."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from script.metrics import EXIT_REFUSED, main
from tests.metric_helpers import arguments, made_backbone, make_folders, noisy, picture
from util.errors import UserError
from util.metrics.evaluate import evaluate_folder
from util.metrics.keypoints import MASK_LIMBS, apply_mask, body_mask, pckh
from util.metrics.pairs import score_pairs
from util.metrics.protocols import PROTOCOLS, find_protocol
from util.metrics.reconstruction import l1, psnr
from util.metrics.registry import Settings
from util.skeleton import in_frame
from util.tables.patn import write_keypoints

SIZE = (64, 44)
NOBODY = np.full((18, 2), -1.0)


def person(seed: int = 0, size=SIZE) -> np.ndarray:
    random = np.random.RandomState(seed)
    return random.randint(0, size, (18, 2)).astype(float)


def _joints(rows: np.ndarray) -> np.ndarray:
    """(N, 36) x0, y0, x1, y1 … as (N, 18, 2) (y, x)."""
    return rows.reshape(-1, 18, 2)[..., ::-1]


def test_pckh_reproduces_the_recorded_values_of_magpt():
    with np.load(Path(__file__).parent / "golden" / "magpt_metrics.npz") as golden:
        actual, predicted = _joints(golden["pckh_actual"]), _joints(golden["pckh_pred"])
        for prediction, expected in (
            (predicted, golden["pckh_result"]),
            (actual, golden["pckh_self"]),
        ):
            correct, valid = (joints.sum() for joints in pckh(actual, prediction))
            assert correct / valid == pytest.approx(expected[0], abs=1e-12)
            assert (correct, valid) == (expected[1], expected[2])


def test_pckh_limit_is_half_the_head_box_on_each_axis_exclusive():
    actual = NOBODY.copy()
    actual[0], actual[1], actual[5] = (10, 20), (18, 30), (40, 40)  # box 8 high, 10 wide
    for shift, correct in (((3.9, 4.9), 1), ((4, 0), 0), ((0, 5), 0)):
        predicted = NOBODY.copy()
        predicted[5] = actual[5] + shift
        found = pckh(actual[None], predicted[None])
        assert [int(joints[0]) for joints in found] == [correct, 3]


def test_pckh_leaves_out_images_with_fewer_than_two_head_joints():
    actual = NOBODY.copy()
    actual[0], actual[5] = (10, 20), (40, 40)
    assert pckh(actual[None], actual[None])[1].sum() == 0


def test_mask_of_one_limb_is_a_bar_with_round_ends():
    keypoints = NOBODY.copy()
    keypoints[2], keypoints[3] = (20, 20), (40, 20)  # vertical, in the middle of the frame
    mask = body_mask(keypoints, SIZE)
    assert mask[30, 16:25].all()
    assert not mask[30, :16].any()
    assert not mask[30, 25:].any()
    assert mask[17, 20]
    assert not mask[16, 20]  # 4 px above the joint: the disc is open


def test_mask_of_a_single_joint_is_a_disc_and_of_nobody_is_empty():
    keypoints = NOBODY.copy()
    keypoints[0] = (30, 20)
    mask = body_mask(keypoints, SIZE)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    disc = (rows - 30) ** 2 + (columns - 20) ** 2 < 16
    assert mask[disc].all()
    assert mask.sum() <= disc.sum() + 12  # the closing may fill its corners
    assert not body_mask(NOBODY, SIZE).any()


def test_limbs_without_length_and_joints_outside_the_frame_are_no_problem():
    keypoints = np.zeros((18, 2))
    assert body_mask(keypoints, SIZE).any()
    keypoints[:] = (200, -30)
    assert not body_mask(keypoints, SIZE).any()


def test_limb_list_is_the_published_one():
    assert len(MASK_LIMBS) == 23
    assert MASK_LIMBS[0] == (1, 2)
    assert MASK_LIMBS[-1] == (16, 17)


def test_keypoints_are_scaled_between_frames_and_missing_ones_stay():
    keypoints = np.array([[128.0, 88.0], [-1.0, 5.0]])
    scaled = in_frame(keypoints, (256, 176), (64, 44))
    assert scaled.tolist() == [[32.0, 22.0], [-1.0, -1.0]]


@pytest.fixture
def folders(tmp_path):
    folders = make_folders(tmp_path, count=3)
    write_keypoints(
        tmp_path / "market-annotation-gt.csv", {f"t{i:02d}.png": person(i) for i in range(3)}
    )
    write_keypoints(tmp_path / "found.csv", {f"s_2_t{i:02d}_vis.png": person(i) for i in range(3)})
    return folders


def report(folders) -> dict:
    return json.loads((Path(folders["--output_dir"]) / "run" / "metrics.json").read_text())


def test_masked_metrics_use_the_annotation_beside_the_ground_truth(folders):
    assert main(arguments(folders, "--metrics", "mask_psnr", "psnr", "--name", "run")) == 0
    expected = []
    for i in range(3):
        mask = body_mask(person(i), SIZE)
        gt, pred = picture(i, SIZE), noisy(picture(i, SIZE), i)
        expected.append(psnr(apply_mask(gt, mask), apply_mask(pred, mask)))
    found = report(folders)["metrics"]
    assert found["dptn.mask_psnr"]["value"] == pytest.approx(np.mean(expected), abs=1e-12)
    assert found["dptn.mask_psnr"]["value"] > found["dptn.psnr"]["value"] - 2


def test_calculate_mask_adds_the_mask_columns(folders, tmp_path):
    path = made_backbone(tmp_path / "alex.pth", "alex")
    words = ("--calculate_mask", "--metrics", "psnr", "--alexnet_weights", str(path))
    words = (*words, "--protocol", "patn", "--market", "--name", "run")
    assert main(arguments(folders, *words)) == 0
    assert list(report(folders)["metrics"]) == [
        "patn-market.psnr",
        *(f"patn-market.mask_{name}" for name in ("lpips", "ssim", "psnr", "l1")),
    ]


def test_masks_without_keypoints_are_refused(folders, tmp_path):
    (tmp_path / "market-annotation-gt.csv").unlink()
    words = arguments(folders, "--metrics", "mask_psnr", "psnr", "--name", "run")
    assert main(words) == EXIT_REFUSED
    assert "--annotation" in report(folders)["refused"]["dptn.mask_psnr"]


def test_targets_that_the_annotation_lacks_are_listed(folders, tmp_path):
    write_keypoints(tmp_path / "market-annotation-gt.csv", {"t00.png": person(0)})
    with pytest.raises(UserError, match=r"(?s)2 without keypoints.*t01"):
        main(arguments(folders, "--metrics", "mask_psnr"))


def test_masked_scores_of_arrays_are_refused_in_words():
    with pytest.raises(UserError, match="mask_psnr cannot be computed from pairs"):
        score_pairs([(picture(0), picture(1))], metrics=["mask_psnr"])


def test_pckh_from_two_keypoint_files(folders, tmp_path):
    words = ("--metrics", "pckh", "--result_keypoints", str(tmp_path / "found.csv"))
    assert main(arguments(folders, *words, "--name", "run")) == 0
    found = report(folders)["metrics"]["dptn.pckh"]
    assert found["value"] == 1
    assert found["correct"] == found["valid"] == 54


def test_pckh_from_an_estimator(folders):
    calls = []

    def estimator(image: Image.Image, where: str) -> np.ndarray:
        calls.append(image.size[::-1])
        return person(0)

    paths = [folders[k] for k in ("--distorated_path", "--gt_path")]
    settings = Settings(estimator=estimator)
    evaluation = evaluate_folder(*paths, None, [find_protocol("magpt")], ["pckh"], settings)
    assert evaluation.scores[0].value == 1
    assert evaluation.scores[0].column == "magpt.pckh"
    assert calls == [SIZE] * 6


def test_pckh_without_keypoints_of_the_results_is_refused(folders):
    assert main(arguments(folders, "--metrics", "pckh", "--name", "run")) == EXIT_REFUSED
    assert "--result_keypoints" in report(folders)["refused"]["dptn.pckh"]


def test_pckh_with_an_incomplete_file_lists_what_is_missing(folders, tmp_path):
    write_keypoints(tmp_path / "found.csv", {"s_2_t00_vis.png": person(0)})
    words = ("--metrics", "pckh", "--result_keypoints", str(tmp_path / "found.csv"))
    with pytest.raises(UserError, match=r"(?s)2 results without keypoints.*s_2_t01_vis"):
        main(arguments(folders, *words))


FRAME = (256, 176)


def published_person(size=FRAME) -> np.ndarray:
    """Eighteen joints that reach over most of a frame."""
    y = np.array([30, 60, 60, 90, 120, 60, 90, 120, 130, 180, 240, 130, 180, 245, 24, 25, 28, 29])
    x = np.array([88, 88, 60, 40, 12, 116, 140, 170, 70, 68, 66, 106, 108, 110, 82, 94, 76, 100])
    return np.stack([y, x], axis=1) * np.array(size) / np.array(FRAME)


def perfect(tmp_path, size, of_results, table="fashion-annotation-test.csv"):
    """Folders whose images have ``size``, keypoints in the published frame and equal ones of the
    results, in their pixels."""
    folders = make_folders(tmp_path, count=2, size=size)
    (tmp_path / "gt").rename(tmp_path / "test")
    folders["--gt_path"] = str(tmp_path / "test")
    people = {f"t{i:02d}": published_person() + i for i in range(2)}
    write_keypoints(tmp_path / table, {f"{k}.png": v for k, v in people.items()})
    scale = np.array(of_results) / np.array(FRAME)
    write_keypoints(
        tmp_path / "found.csv", {f"s_2_{k}_vis.png": v * scale for k, v in people.items()}
    )
    return folders


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("size", [(256, 256), (512, 352)])
def test_perfect_keypoints_score_1_in_every_protocol_and_frame(tmp_path, protocol, size):
    folders = perfect(tmp_path, size, of_results=size)
    words = ["--metrics", "pckh", "--protocol", protocol, "--no_html", "--name", "run"]
    words += ["--result_keypoints", str(tmp_path / "found.csv")]
    assert main(arguments(folders, *words)) == 0
    found = report(folders)["metrics"][f"{protocol}.pckh"]
    assert (found["value"], found["valid"]) == (1, 36)


def test_masks_lie_on_the_body_whatever_the_size_of_the_images(tmp_path):
    folders = perfect(tmp_path, (128, 128), (128, 128))
    assert main(arguments(folders, "--metrics", "mask_l1", "--name", "run")) == 0
    expected = []
    for i in range(2):
        joints = (published_person() + i) * np.array([128 / 256, 128 / 176])
        mask = body_mask(joints, (128, 128))
        gt, pred = picture(i, (128, 128)), noisy(picture(i, (128, 128)), i)
        expected.append(l1(apply_mask(gt, mask), apply_mask(pred, mask)))
    value = report(folders)["metrics"]["dptn.mask_l1"]["value"]
    assert value == pytest.approx(np.mean(expected), abs=1e-12)


def test_keypoints_of_an_unknown_frame_are_refused_before_measuring(tmp_path):
    folders = perfect(tmp_path, (512, 512), (512, 512), table="own-annotation-test.csv")
    with pytest.raises(UserError, match=r"reach y = 246 and x = 171, the images are 512x512"):
        main(arguments(folders, "--metrics", "mask_l1"))
    words = ("--metrics", "mask_l1", "--annotation_size", "256", "176", "--name", "run")
    assert main(arguments(folders, *words)) == 0


def test_keypoints_outside_their_frame_are_refused(tmp_path):
    folders = perfect(tmp_path, (64, 44), (64, 44))
    with pytest.raises(UserError, match=r"only \d+% of the joints in .*of 64x44"):
        main(arguments(folders, "--metrics", "mask_l1", "--annotation_size", "64", "44"))
    words = ("--metrics", "pckh", "--result_keypoints_size", "32", "22")
    words = (*words, "--result_keypoints", str(tmp_path / "found.csv"))
    with pytest.raises(UserError, match=r"of 32x22 .*--result_keypoints_size"):
        main(arguments(folders, *words))


def test_a_head_without_extent_is_no_measure(tmp_path):
    actual = published_person()[None].copy()
    actual[0, [14, 15, 16, 17]] = -1  # nose and neck only, one above the other
    actual[0, 1, 1] = actual[0, 0, 1]
    assert pckh(actual, actual)[1].sum() == 0
