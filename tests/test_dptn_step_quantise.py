"""The quantiser of the step system, against the published table."""

import numpy as np
import pytest
import torch

from models.networks.dptn_step import check_divisors, coarse_bytes, coarse_image, step_divisors
from util.errors import UserError

SCHEDULES = {
    1: (1,),
    2: (128, 1),
    3: (170, 85, 1),
    4: (192, 129, 66, 1),
    5: (204, 153, 102, 51, 1),
    10: (230, 205, 180, 155, 130, 105, 80, 55, 30, 1),
}
# J = 5: levels in bytes, and how many of the 256 byte values fall on each.
LEVELS = {
    204: ([0, 204], [204, 52]),
    153: ([0, 153], [153, 103]),
    102: ([0, 102, 204], [102, 102, 52]),
    51: ([0, 51, 102, 153, 204, 255], [51, 51, 51, 51, 51, 1]),
}


@pytest.mark.parametrize("steps", SCHEDULES)
def test_divisors_follow_the_published_schedule(steps):
    assert step_divisors(steps) == SCHEDULES[steps]


def test_every_possible_number_of_steps_gives_a_valid_schedule():
    for steps in range(1, 255):
        divisors = step_divisors(steps)
        assert len(divisors) == steps
        assert check_divisors(divisors) == divisors


@pytest.mark.parametrize("steps", [0, -1, 255])
def test_impossible_numbers_of_steps_are_refused(steps):
    with pytest.raises(UserError, match=r"1\.\.254"):
        step_divisors(steps)


@pytest.mark.parametrize("divisors", [[], [5, 5, 1], [5, 2], [1, 2], [256, 1], [3, 0], [1, 0]])
def test_wrong_schedules_are_refused(divisors):
    with pytest.raises(UserError, match="d_schedule"):
        check_divisors(divisors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("steps", SCHEDULES)
def test_all_256_byte_values_land_on_their_level_whatever_the_normalisation(steps, dtype):
    byte_values = torch.arange(256, dtype=torch.uint8)
    as_trained = byte_values.to(dtype) / 127.5 - 1
    as_torchvision = (byte_values.to(dtype) / 255 - 0.5) / 0.5
    for divisor in step_divisors(steps):
        expected = np.arange(256) // divisor * divisor
        for images in (as_trained, as_torchvision):
            coarse = coarse_image(images, divisor)
            assert coarse.dtype == dtype
            in_bytes = (coarse.double() + 1) * 127.5
            assert np.allclose(in_bytes.numpy(), expected, atol=1e-4)
            assert np.array_equal(in_bytes.round().numpy(), expected)
        assert np.array_equal(coarse_bytes(byte_values, divisor).numpy(), expected)


def test_levels_and_their_populations_match_the_table():
    images = torch.arange(256) / 127.5 - 1
    for divisor, (levels, counts) in LEVELS.items():
        in_bytes = ((coarse_image(images, divisor) + 1) * 127.5).round()
        found, population = in_bytes.unique(return_counts=True)
        assert found.tolist() == levels
        assert population.tolist() == counts


def test_coarse_images_are_idempotent_and_the_last_step_is_the_image_itself():
    images = torch.randint(0, 256, (2, 3, 8, 8)) / 127.5 - 1
    for divisor in step_divisors(5):
        once = coarse_image(images, divisor)
        assert torch.equal(coarse_image(once, divisor), once)
    assert torch.allclose(coarse_image(images, 1), images, atol=1e-6)
