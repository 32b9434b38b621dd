import pytest
import torch as th
from torch import nn

from sb3_visual_td3.visual_td3.precision import SIDE, blocks_of, can_use_blocks, convolve_blocks


def test_pixels_within_a_block_are_ordered_by_channel_then_row_then_column():
    images = th.randint(0, 256, (2, 3, 8, 12), dtype=th.uint8)
    blocks = blocks_of(images)
    assert blocks.shape == (2, 3 * SIDE * SIDE, 2, 3)
    assert blocks.is_contiguous(memory_format=th.channels_last)
    for channel in range(3):
        for row in range(8):
            for column in range(12):
                within = channel * SIDE * SIDE + row % SIDE * SIDE + column % SIDE
                assert th.equal(blocks[:, within, row // SIDE, column // SIDE], images[:, channel, row, column])


def test_a_transposed_view_gives_the_same_blocks():
    images = th.randint(0, 256, (2, 8, 8, 3), dtype=th.uint8).permute(0, 3, 1, 2)
    assert th.equal(blocks_of(images), blocks_of(images.contiguous()))


@pytest.mark.parametrize(("kernel", "height", "width"), [(8, 84, 84), (8, 36, 48), (4, 16, 16), (12, 64, 64)])
def test_a_convolution_and_its_gradients_on_blocks_equal_those_on_scaled_images(kernel, height, width):
    layer = nn.Conv2d(4, 6, kernel, SIDE).double()
    assert can_use_blocks(layer, height, width)
    images = th.randint(0, 256, (3, 4, height, width), dtype=th.uint8)
    expected = layer(images.double() / 255)
    found = convolve_blocks(layer, blocks_of(images).double(), 1 / 255)
    th.testing.assert_close(found, expected)
    for one, two in zip(
        *(th.autograd.grad(y.pow(2).sum(), layer.parameters()) for y in (found, expected)), strict=True
    ):
        th.testing.assert_close(one, two)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 8, 2),
        nn.Conv2d(4, 6, 6, 4),
        nn.Conv2d(4, 6, (8, 4), 4),
        nn.Conv2d(4, 6, 8, 4, padding=2),
        nn.Conv2d(4, 6, 8, 4, dilation=2),
        nn.Conv2d(4, 8, 8, 4, groups=2),
        nn.Linear(4, 4),
        nn.utils.spectral_norm(nn.Conv2d(4, 6, 8, 4)),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(4, 6, 8, 4)),
    ],
)
def test_layers_of_another_kind_do_not_see_blocks(layer):
    assert not can_use_blocks(layer, 84, 84)


def test_images_whose_size_is_no_multiple_of_a_block_are_not_cut():
    assert not can_use_blocks(nn.Conv2d(4, 6, 8, SIDE), 84, 86)
    assert not can_use_blocks(nn.Conv2d(4, 6, 8, SIDE), 85, 84)
