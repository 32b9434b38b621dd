import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_visual_td3.visual_td3.batches import augmented, random_shift, shift_by


def naive_shift(images, rows, columns):
    shifted = np.empty_like(images)
    batch, _, height, width = images.shape
    for i in range(batch):
        for y in range(height):
            for x in range(width):
                source_y = min(max(y + rows[i], 0), height - 1)
                source_x = min(max(x + columns[i], 0), width - 1)
                shifted[i, :, y, x] = images[i, :, source_y, source_x]
    return shifted


def test_a_shift_equals_that_of_a_naive_twin():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 4, 12, 10), dtype=np.uint8)
    rows, columns = rng.integers(-4, 5, (2, 6))
    found = shift_by(th.from_numpy(images), th.from_numpy(rows), th.from_numpy(columns))
    np.testing.assert_array_equal(found.numpy(), naive_shift(images, rows, columns))


def test_shifts_are_whole_pixels_within_the_pad_and_all_of_them_occur():
    images = th.arange(20, dtype=th.uint8).repeat(400, 1, 20, 1)
    middle = random_shift(images, 2)[:, 0, 10, 10].tolist()
    assert set(middle) == {8, 9, 10, 11, 12}


def test_a_random_shift_with_pad_0_returns_the_images_and_draws_no_random_numbers():
    images = th.zeros(2, 4, 8, 8, dtype=th.uint8)
    state = th.get_rng_state()
    assert random_shift(images, 0) is images
    assert th.equal(th.get_rng_state(), state)


def test_only_images_of_a_dict_are_shifted():
    observations = {
        "camera": th.arange(64, dtype=th.uint8).view(1, 1, 8, 8).repeat(50, 1, 1, 1),
        "state": th.ones(50, 3),
    }
    shifted = augmented(observations, 2, {"camera": spaces.Box(0, 255, (1, 8, 8), np.uint8)})
    assert shifted["state"] is observations["state"]
    assert not th.equal(shifted["camera"], observations["camera"])
    assert shifted["camera"].dtype == th.uint8


@pytest.mark.parametrize("pad", [-1, 1.5, True])
def test_a_pad_that_is_not_a_count_is_refused(make_model, pad):
    with pytest.raises(ValueError, match="random_shift"):
        make_model(random_shift=pad)
