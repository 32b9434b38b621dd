"""What a camera shows, in two numbers: whether there is anything to see, and whether it changes."""

from __future__ import annotations

import torch as th


def frame_std(frames: th.Tensor) -> th.Tensor:
    """Standard deviation of the pixels within a channel of a frame, averaged over channels and frames.

    Within a frame, not over all of them: a lens that is covered may still become lighter and darker.

    :param frames: ``(batch, channels, height, width)`` uint8
    :return: a scalar >= 0 in grey levels; 0 where every frame is of one colour
    """
    return frames.flatten(start_dim=2).float().std(dim=2, correction=0).mean()


def frame_change(frames: th.Tensor, previous: th.Tensor) -> th.Tensor:
    """Mean absolute difference between frames and those before them.

    Stacks are compared as a whole, so that their depth need not be known: each frame with its successor.

    :param frames: ``(batch, channels, height, width)`` uint8
    :param previous: the same number of frames, one step earlier
    :return: a scalar in [0, 255] grey levels; exactly 0 where no pixel changed
    """
    # Neither order of subtraction fits into the pixels' own type; the larger minus the smaller does.
    difference = th.maximum(frames, previous) - th.minimum(frames, previous)
    return difference.float().mean()
