"""The benchmark on public tasks: equal settings for all algorithms, interrupted runs, the table, DeepMind Control."""

from __future__ import annotations

import ctypes.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import public_tasks
import pytest
from gymnasium.utils.env_checker import check_env
from result_rows import Row, read
from stable_baselines3.common.env_util import make_vec_env

from tests.image_env import ImageEnv


def row_of(seed: int, frames: int, value: float, episodes: int, minutes: float = 1.0, **others: Any) -> Row:
    key = {"task": "CarRacing-v3", "algorithm": "visual_td3", "seed": seed, **others}
    return {**key, "frames": frames, "return": value, "episodes": episodes, "minutes": minutes}


@pytest.mark.parametrize("task", public_tasks.TASKS)
def test_all_algorithms_have_the_same_updates_batch_size_and_learning_rate(task: str) -> None:
    defaults = {"train_freq": 1, "gradient_steps": 1}  # Stable-Baselines3's
    names = ("batch_size", "learning_starts", "learning_rate", "gamma", *defaults)
    blocks = [{**defaults, **public_tasks.block(task, algorithm)} for algorithm in public_tasks.ALGORITHMS]
    assert len({tuple(block[name] for name in names) for block in blocks}) == 1


def test_the_table_compares_the_mean_of_the_last_policies_with_published_results() -> None:
    ours = [row_of(0, 20_000, 900.0, 5), row_of(0, 200_000, 700.0, 20, 50.0), row_of(1, 200_000, 801.0, 20, 70.0)]
    lines = public_tasks.table(ours, ["CarRacing-v3"]).splitlines()
    assert "| CarRacing-v3 | visual_td3 | 2 | 750 | 700, 801 | 200,000 | 60 |" in lines
    assert "| CarRacing-v3 | PPO (rl-zoo), published | | 154 | | 8,000,000 | |" in lines
    assert len([line for line in lines if "visual_td3" in line]) == 1
    assert not any("walker_walk" in line for line in lines)


def test_runs_of_different_lengths_are_not_averaged() -> None:
    ours = [row_of(0, 200_000, 700.0, 20), row_of(1, 60_000, 500.0, 20)]
    lines = public_tasks.table(ours, public_tasks.TASKS)
    assert "| 1 | 500 | 500 | 60,000 |" in lines
    assert "| 1 | 700 | 700 | 200,000 |" in lines


def test_a_run_is_finished_once_its_final_evaluation_is_in_the_results() -> None:
    key = {"task": "CarRacing-v3", "algorithm": "visual_td3", "seed": 0}
    assert not public_tasks.is_finished([row_of(0, 200_000, 1.0, 5), row_of(1, 200_000, 1.0, 20)], key, 100_000)
    assert public_tasks.is_finished([row_of(0, 200_000, 1.0, 20)], key, 100_000)


class StackedImages(ImageEnv):
    frame_stack = 4


@pytest.mark.parametrize("algorithm", public_tasks.ALGORITHMS)
def test_an_interrupted_run_continues_and_drops_the_rows_after_its_snapshot(
    algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"normalize": False, "batch_size": 4, "learning_starts": 20, "train_freq": 10, "gradient_steps": 1}
    monkeypatch.setitem(public_tasks.TASKS, "images", public_tasks.Task(60, 20, n_last=3, changes=settings))
    monkeypatch.setattr(public_tasks, "environment", lambda task, block, seed: make_vec_env(StackedImages, 1, seed))
    killed = KeyboardInterrupt()
    evaluated: list[list[float] | BaseException] = [[1.0], killed, [4.0], killed, [5.0, 6.0, 7.0]]

    def evaluate(*args: object, **kwargs: object) -> tuple[list[float], list[int]]:
        found = evaluated.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found, []

    monkeypatch.setattr(public_tasks, "evaluate_policy", evaluate)
    key, output = {"task": "images", "algorithm": algorithm, "seed": 0}, tmp_path / "rows.csv"
    with pytest.raises(KeyboardInterrupt):
        public_tasks.run(key, 60, output, tmp_path / "logs")
    # As if the process had died after this evaluation and before the snapshot that follows it.
    public_tasks.add(row_of(frames=80, value=99.0, episodes=5, **key), output, public_tasks.COLUMNS)
    other = row_of(1, 80, 3.0, 5)
    public_tasks.add(other, output, public_tasks.COLUMNS)
    with pytest.raises(KeyboardInterrupt):  # in the last evaluation: the last snapshot exists already
        public_tasks.run(key, 60, output, tmp_path / "logs")
    public_tasks.run(key, 60, output, tmp_path / "logs")
    rows = read(output)
    assert [(row["frames"], row["return"]) for row in rows if row["task"] == "images"] == [
        (40, 1.0),
        (80, 4.0),
        (120, 6.0),
    ]
    assert other in rows
    assert public_tasks.is_finished(rows, key, 60)
    assert not public_tasks.is_finished(rows, key, 90), "a shorter run does not count as the longer one"
    monkeypatch.setattr(public_tasks, "evaluate_policy", lambda *_, **__: ([8.0, 8.0, 8.0], []))
    public_tasks.run(key, 30, output, tmp_path / "logs")
    assert read(output)[:-2] == rows, "another run of a different length keeps the rows of the first"
    assert list((tmp_path / "logs").iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(ctypes.util.find_library("OSMesa") is None, reason="there is no libosmesa6 to draw with")
def test_a_task_of_deepmind_control_is_an_environment_whose_seed_decides_where_it_begins() -> None:
    pytest.importorskip("dm_control", reason="it is of the extra bench")
    os.environ.setdefault("MUJOCO_GL", "osmesa")
    from dmc_env import PixelSuiteEnv

    env = PixelSuiteEnv("cartpole_swingup")
    try:
        check_env(env, skip_render_check=True)
        first, again, other = (env.reset(seed=seed)[0] for seed in (3, 3, 4))
        assert np.array_equal(first, again)
        assert not np.array_equal(first, other)
        assert np.array_equal(first[:3], first[6:])  # at its start, a stack is one frame
        seen, *_ = env.step(env.action_space.high)
        assert np.array_equal(seen[:6], other[3:])  # oldest first
        ends = [env.step(env.action_space.low)[2:4] for _ in range(499)]
        assert ends[-1] == (False, True)  # 1,000 frames, and truncated
        assert not any(truncated for _, truncated in ends[:-1])
    finally:
        env.close()
