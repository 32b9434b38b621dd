"""n-step windows and released frames, compared with results worked out by hand."""

import numpy as np

from sb3_visual_td3.buffers.frame_store import ids_let_go, n_step_windows


def flags(size, *rows):
    found = np.zeros((size, 1), bool)
    found[list(rows)] = True
    return found


def windows(rows, is_last, newest, n_steps):
    return n_step_windows(np.array(rows), np.zeros(len(rows), np.int64), is_last, newest, n_steps)


def test_a_window_ends_early_at_an_episode_end_or_the_newest_row():
    found = windows([0, 1, 2, 3], [flags(6, 1)], newest=4, n_steps=3)
    assert found.rows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert found.is_within.tolist() == [
        [True, True, False],
        [True, False, False],
        [True, True, True],
        [True, True, False],
    ]
    assert found.last_rows.tolist() == [1, 1, 4, 4]


def test_a_window_wraps_at_the_end_of_the_ring_and_stops_before_the_oldest_row():
    found = windows([4, 5, 0, 1], [flags(6)], newest=0, n_steps=4)
    assert found.rows[0].tolist() == [4, 5, 0, 1]
    assert found.last_rows.tolist() == [0, 0, 0, 4]


def test_an_episode_end_in_one_environment_does_not_end_windows_of_another():
    second = np.array([[False, True], [False, False], [False, False]])
    found = n_step_windows(np.array([0, 0]), np.array([0, 1]), [np.zeros((3, 2), bool), second], 2, 2)
    assert found.last_rows.tolist() == [1, 0]


def test_a_window_longer_than_the_ring_ends_at_the_newest_row():
    assert windows([0, 1], [flags(2)], newest=1, n_steps=5).last_rows.tolist() == [1, 1]


def test_frames_that_the_next_transition_uses_are_kept():
    replaced = np.array([[3, 3, 3, 4], [3, 3, 4, 5]], np.int32)
    successor = np.array([[3, 3, 4, 5], [3, 4, 5, 6]], np.int32)
    assert ids_let_go(replaced, successor) == []
    assert ids_let_go(replaced, np.array([[9, 4, 9, 9]], np.int32)) == [3, 5]
