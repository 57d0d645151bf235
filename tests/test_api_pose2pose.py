"""MAGPT's inference API: geometry and pictures against recorded ones, published usage."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import api as inference
from api import Pose2Pose
from models.estimators import OPENPOSE_FILE, Person
from models.networks.pose2pose import Pose2PoseGenerator
from tests.helpers import GOLDEN
from tests.photo_helpers import ListEstimator, magpt_state, openpose_state, person, standing
from tests.test_openpose import KEYS as OPENPOSE_KEYS
from util.errors import UserError
from util.person.crop import fit, fit_keypoints

ARRAYS = np.load(GOLDEN / "magpt_api.npz")
SIZES = ((176, 256), (171, 256), (256, 256), (300, 411), (100, 300), (750, 1101), (1101, 750))
RESULT_SIZES = [(w, 256) for w in (176, 171, 176, 176, 85, 174, 176)]  # 256 w // h, at most 176
SLOW = pytest.mark.slow
RESULTS = {
    "a": ((176, 256), (176, 256)),
    "b": ((300, 411), (171, 256)),
    "c": ((750, 1101), (1101, 750)),
    "d": ((256, 256), (100, 300)),
}


def picture(size: tuple[int, int]) -> Image.Image:
    """The synthetic picture of the recorded arrays, size (width, height)."""
    y, x, c = np.mgrid[: size[1], : size[0], :3]
    return Image.fromarray((((c + 1) * (3 * x + 5 * y) + (x * y) // 7) // 4 % 256).astype(np.uint8))


def recorded_person(key: str) -> Person:
    """x, y, found -> a person in our format."""
    values = ARRAYS[key][0]
    return person(np.where(values[:, 2:] > 0, values[:, 1::-1], -1))


@pytest.fixture(scope="module")
def weight_file(tmp_path_factory):
    """A file in the published format with the weights of the recorded pictures."""
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in Pose2PoseGenerator().state_dict().items()}
    path = tmp_path_factory.mktemp("weights") / inference.GENERATOR_FILE.name
    torch.save(magpt_state(shapes), path)
    return path


def api(weight_file, *answers, **settings) -> Pose2Pose:
    estimator = ListEstimator(*answers)
    return Pose2Pose(checkpoint=weight_file, device="cpu", estimator=estimator, **settings)


def levels(result: Image.Image, key: str) -> int:
    """Largest difference in grey levels from a recorded picture (every second pixel is kept)."""
    return np.abs(np.asarray(result)[::2, ::2].astype(int) - ARRAYS[f"{key}_sub2"]).max()


@pytest.mark.parametrize("size", SIZES)
def test_pictures_of_seven_sizes_are_fitted_as_recorded(size):
    found = np.asarray(fit(picture(size)))
    assert found.shape == (256, 256, 3)
    key = f"api_pre_{size[0]}x{size[1]}_sub3"
    assert np.abs(found[::3, ::3].astype(int) - ARRAYS[key]).max() <= 1


@pytest.mark.parametrize(
    ("size", "first", "last"),
    [((176, 256), 40, 215), ((174, 256), 41, 214), ((171, 256), 43, 213), ((85, 256), 85, 169)],
)
def test_the_strip_lies_where_the_published_rounding_puts_it(size, first, last):
    fitted = np.asarray(fit(Image.new("RGB", size, (0, 0, 0))))
    columns = np.flatnonzero((fitted == 0).all(axis=(0, 2)))
    assert (columns[0], columns[-1]) == (first, last)


@pytest.mark.parametrize("size", SIZES)
def test_keypoints_follow_the_pixels_of_the_fitted_picture(size):
    width, height = size
    image = Image.new("RGB", size)
    y, x = height // 3, width // 2
    radius = max(2, height // 100)
    image.paste((255, 0, 0), (x - radius, y - radius, x + radius + 1, y + radius + 1))
    points = np.full((18, 2), -1.0)
    points[4] = y, x
    moved = fit_keypoints(points, (height, width))
    pixels = np.asarray(fit(image)).astype(int)
    red = np.argwhere(pixels[..., 0] - pixels[..., 1] > 100)
    assert np.abs(red.mean(axis=0) - moved[4]).max() <= 1
    assert (np.delete(moved, 4, axis=0) == -1).all()


def test_joints_in_the_sides_that_are_cut_off_become_missing():
    points = np.full((18, 2), -1.0)
    points[:2] = (100, 10), (100, 500)
    moved = fit_keypoints(points, (750, 1101))
    assert moved[0].tolist() == [-1, -1]
    assert (moved[1] >= 0).all()


@pytest.mark.parametrize(
    "key", ["a", pytest.param("b", marks=SLOW), pytest.param("c", marks=SLOW), "d"]
)
def test_results_are_the_recorded_ones(weight_file, key):
    condition, reference = map(picture, RESULTS[key])
    people = [recorded_person("api_kpA")], [recorded_person("api_kpB")]
    result = api(weight_file, *people).transfer_as(condition, reference)
    assert result.mode == "RGB"
    assert levels(result, f"api_out_{key}") <= 1


def test_nobody_is_refused_or_on_request_an_empty_pose_as_published(weight_file):
    image = picture((176, 256))
    with pytest.raises(UserError, match="the condition picture: no person was found"):
        api(weight_file, []).transfer_as(image, image)
    result = api(weight_file, [], [], allow_nobody=True).transfer_as(image, image)
    assert levels(result, "api_out_nobody") <= 1


class SpyGenerator:
    """Keeps its inputs; paints sample i in the grey level 100 + i."""

    def __call__(self, images, own, target):
        self.images, self.own, self.target = images, own, target
        grey = (torch.arange(len(images)) + 100.5) / 255 * 2 - 1
        return grey.view(-1, 1, 1, 1).expand(-1, 3, 256, 256)


def test_given_keypoints_are_in_pixels_of_the_picture_and_need_no_estimator(weight_file):
    transfer = api(weight_file)
    transfer._generator = SpyGenerator()
    points = [standing(10, 20, 230, 120), standing(20, 10, 200, 150)]
    doubled = points[1] * 2
    points[1][7] = doubled[7] = -1
    transfer.transfer_as(picture((176, 256)), picture((352, 512)), points[0], doubled)
    for maps, expected in (
        (transfer._generator.own, points[0]),
        (transfer._generator.target, points[1]),
    ):
        for joint, (y, x) in enumerate(expected.astype(int)):
            lit = torch.nonzero(maps[0, joint]).tolist()
            assert lit == ([] if y == -1 else [[y, x + 40]])  # the strip begins at column 40


def test_many_pairs_keep_their_order_and_their_own_sizes(weight_file):
    references = [picture(size) for size in ((100, 300), (176, 256), (171, 256))]
    answers = [[recorded_person("api_kpA")]] * 6
    transfer = api(weight_file, *answers)
    transfer._generator = SpyGenerator()
    results = transfer.transfer_many([picture((60, 90))] * 3, references, batch_size=2)
    assert [result.size for result in results] == [(85, 256), (176, 256), (171, 256)]
    assert [result.getpixel((0, 0))[0] for result in results] == [100, 101, 100]  # two batches


def test_the_published_snippet_runs_with_files_in_the_cache(weight_file, tmp_path, monkeypatch):
    cache = tmp_path / ".cache" / "torch" / "checkpoints"
    cache.mkdir(parents=True)
    shutil.copy(weight_file, cache)
    torch.save(openpose_state(OPENPOSE_KEYS), cache / OPENPOSE_FILE.name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    picture((176, 256)).save("condition.jpg")
    picture((171, 256)).save("reference.jpg")
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append(self))
    # Random OpenPose weights see nobody; the recorded person stands in for what they would find.
    people = [recorded_person("api_kpA")]
    monkeypatch.setattr(
        "models.estimators.OpenPoseEstimator.estimate",
        lambda self, image: people if self.network else [],
    )
    snippet = """
from PIL import Image
from api import Pose2Pose

p2p = Pose2Pose(pretrained=True)
condition = Image.open('condition.jpg')
reference = Image.open('reference.jpg')
generated = p2p.transfer_as(condition, reference)
generated.show()
"""
    scope = {}
    exec(compile(snippet, "snippet", "exec"), scope)
    assert [image.size for image in shown] == [(171, 256)]
    scope["p2p"]._generator = SpyGenerator()  # the sizes alone, without the time
    results = [scope["p2p"].transfer_as(picture((176, 256)), picture(size)) for size in SIZES]
    assert [image.size for image in results] == RESULT_SIZES


def test_without_weights_there_is_a_sentence_and_never_random_ones(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="expected pretrained=True, or checkpoint=PATH"):
        Pose2Pose()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    with pytest.raises(UserError, match="the MAGPT generator is in neither cache"):
        Pose2Pose(pretrained=True)


def unreachable(*args, **kwargs):
    raise OSError("no network")


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save({"in1_conv1.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "netG.pth")
    with pytest.raises(UserError, match="does not fit Pose2PoseGenerator: keys 276 missing"):
        Pose2Pose(checkpoint=tmp_path / "netG.pth")


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "meta:x"])
def test_a_device_that_is_not_there_is_refused(weight_file, device):
    with pytest.raises(UserError, match="cannot be used"):
        Pose2Pose(checkpoint=weight_file, device=device)
