"""Pure index arithmetic: which rows an n-step window spans, and which frames nothing points to any more."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Rows = NDArray[np.int64]
Flags = NDArray[np.bool_]


class Windows(NamedTuple):
    """The transitions that follow each sampled one, itself included.

    ``rows`` and ``is_within`` are ``(batch, n_steps)``: rows of the ring, and whether they belong to the window, which
    may end early. ``last_rows`` is ``(batch,)``: the last one that does.
    """

    rows: Rows
    is_within: Flags
    last_rows: Rows


def n_step_windows(rows: Rows, envs: Rows, is_last: list[Flags], newest: int, n_steps: int) -> Windows:
    """Follow each transition until its episode or segment ends, at the newest transition, or after ``n_steps``.

    :param rows: ``(batch,)``, the first row of each window
    :param envs: ``(batch,)``, the environment of each window
    :param is_last: each ``(size, n_envs)``: reasons why nothing may follow a transition
    :param newest: the row written last; what comes after it in the ring is the oldest, or nothing
    :param n_steps: longest window, >= 1
    :return: the windows
    """
    size = len(is_last[0])
    steps = np.arange(n_steps)
    window = (rows[:, None] + steps) % size
    ends = window == newest
    for reason in is_last:
        ends |= reason[window, envs[:, None]]
    ends[:, -1] = True
    n_more = ends.argmax(axis=1)
    return Windows(window, steps <= n_more[:, None], (rows + n_more) % size)


def ids_let_go(replaced: Ids, successor: Ids) -> list[int]:
    """Find the frames that only a replaced transition used.

    A stack takes its frames from the transition before it or stores new ones, so what a transition uses and its
    successor does not, no later one uses either.

    :param replaced: any shape: the ids of the oldest transition, which is being replaced
    :param successor: any shape: the ids of the one that is the oldest now
    :return: each id once
    """
    return sorted(set(replaced.ravel().tolist()) - set(successor.ravel().tolist()))
