"""Step prediction loss, hue loss, and face term against hand-made crops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.losses.perceptual import CONTENT_LAYERS, VGG19Features
from models.losses.step import (
    chroma_loss,
    crop_faces,
    face_boxes,
    face_loss,
    step_loss,
)
from util.tensors import standardise


@pytest.fixture(scope="module")
def vgg():
    return VGG19Features("random")


def eyes_at(*pairs):
    return torch.tensor(pairs, dtype=torch.float32)


def test_face_boxes_follow_the_measured_example():
    # Frontal: the right eye is on the left of the picture. Annotated 16 px apart at width 176.
    eyes = eyes_at([[50, 80 / 176 * 256], [50, 96 / 176 * 256]])
    centre, half = face_boxes(eyes, (256, 256))
    y, x, h = *centre[0].tolist(), half[0].item()
    assert (y - h, y + h) == (21, 79)
    assert (x - h, x + h) == (99, 157)


def test_profiles_and_back_views_get_the_smallest_box():
    _, half = face_boxes(eyes_at([[50, 140], [50, 116]], [[50, 100], [50, 100]]), (256, 176))
    assert half.tolist() == [16.0, 16.0]


@pytest.mark.parametrize("row", [0, 3, 252, 255])
@pytest.mark.parametrize("column", [0, 5, 170, 175])
def test_face_boxes_stay_inside_the_image(row, column):
    centre, half = face_boxes(eyes_at([[row, column], [row, min(column + 30, 175)]]), (256, 176))
    assert (centre - half[:, None]).min() >= 0
    assert centre[0, 0] + half[0] <= 256
    assert centre[0, 1] + half[0] <= 176


def test_crops_equal_slicing_and_bilinear_interpolation():
    torch.manual_seed(0)
    images = torch.rand(3, 3, 128, 88, dtype=torch.float64) * 2 - 1
    eyes = eyes_at([[30, 30], [31, 51]], [[2, 80], [3, 60]], [[60, 10], [62, 80]])
    crops = crop_faces(images, eyes, torch.tensor([True, True, True]))
    centre, half = face_boxes(eyes, (128, 88))
    for i in range(3):
        y, x, h = int(centre[i, 0]), int(centre[i, 1]), int(half[i])
        cut = images[i : i + 1, :, y - h : y + h, x - h : x + h]
        assert cut.shape[2] == cut.shape[3] == 2 * h
        expected = F.interpolate(cut, (32, 32), mode="bilinear", align_corners=True)
        assert torch.allclose(crops[i : i + 1], expected, atol=1e-12)


def test_crops_of_small_images_are_large_enough_for_the_deepest_layer(vgg):
    images = torch.rand(1, 3, 32, 16)
    crops = crop_faces(images, eyes_at([[5, 4], [5, 12]]), torch.tensor([True]))
    assert crops.shape == (1, 3, 16, 16)
    assert torch.isfinite(face_loss(vgg, images, images * 0.5, eyes_at([[5, 4], [5, 12]]),
                                    torch.tensor([True])))  # fmt: skip


def test_samples_without_a_face_count_as_zero(vgg):
    torch.manual_seed(0)
    fake, real = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    eyes = eyes_at([[20, 20], [20, 34]], [[-1, -1], [20, 34]])
    both = face_loss(vgg, fake, real, eyes, torch.tensor([True, False]))
    alone = face_loss(vgg, fake[:1], real[:1], eyes[:1], torch.tensor([True]))
    assert float(both) == pytest.approx(float(alone) / 2, rel=1e-5)
    assert float(face_loss(vgg, fake, real, eyes, torch.tensor([False, False]))) == 0


def test_only_pixels_of_the_face_receive_gradient(vgg):
    fake, real = torch.rand(2, 1, 3, 128, 88) * 2 - 1
    fake.requires_grad_()
    eyes = eyes_at([[30, 30], [30, 46]])
    face_loss(vgg, fake, real, eyes, torch.tensor([True])).backward()
    touched = fake.grad[0].abs().sum(0) > 0
    centre, half = face_boxes(eyes, (128, 88))
    inside = torch.zeros_like(touched)
    y, x, h = int(centre[0, 0]), int(centre[0, 1]), int(half[0])
    inside[y - h : y + h, x - h : x + h] = True
    assert touched.any()
    assert not (touched & ~inside).any()


def test_the_face_term_is_the_content_loss_of_imagenet_standardised_crops(vgg):
    torch.manual_seed(0)
    fake, real = torch.rand(2, 1, 3, 64, 64) * 2 - 1
    eyes = eyes_at([[30, 20], [30, 40]])  # 50 px box
    features = [
        vgg(standardise((crop_faces(x, eyes, torch.tensor([True])) + 1) / 2), CONTENT_LAYERS)
        for x in (fake, real)
    ]
    expected = sum((features[0][n] - features[1][n]).abs().mean() for n in CONTENT_LAYERS)
    found = face_loss(vgg, fake, real, eyes, torch.tensor([True]))
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    white = standardise(torch.ones(1, 3, 1, 1)).flatten().tolist()
    assert white == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])


def test_step_loss_is_the_mean_cross_entropy():
    rng = np.random.RandomState(0)
    logits = torch.from_numpy(rng.randn(6, 5))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    p = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = -np.mean([np.log(float(p[i, y])) for i, y in enumerate(labels)])
    assert float(step_loss(logits.log_softmax(1), labels)) == pytest.approx(expected)


def test_the_hue_loss_is_the_mean_difference_of_red_and_blue_to_green():
    fake = torch.tensor([0.5, 0.1, -0.3]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    real = torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1).expand(2, 3, 4, 4)
    # R - G: 0.4 against -0.1; B - G: -0.4 against 0.1
    assert float(chroma_loss(fake, real)) == pytest.approx(0.5)
    assert float(chroma_loss(fake + 0.3, fake)) == pytest.approx(0, abs=1e-6)  # brightness alone
