"""Runs computed from formulas: healthy, dead, leaking and broken training, also as event files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.groups import GROUP_NAMES
from sb3_visual_td3.diagnosis.series import Series, SeriesSet

REAL_RUNS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
needs_real_runs = pytest.mark.skipif(
    not (REAL_RUNS / "seed_5k").is_dir(), reason="the two recorded runs are not here (../shared/data)"
)

Values = dict[str, tuple[np.ndarray, np.ndarray]]


def healthy(seed: int = 0, last_step: int = 5000, shared_encoder: bool = False) -> Values:
    """Return a healthy training: Q dips below zero first, and the actor's loss falls to minus a few tens."""
    rng = np.random.default_rng(seed)
    steps = np.arange(1100, last_step + 1, 100)
    x = np.linspace(0, 1, steps.size)
    noise = lambda scale: rng.normal(0, scale, steps.size)  # noqa: E731
    q1 = -3 * np.sin(np.pi * np.minimum(x * 3, 1)) + 28 * x**1.5 + noise(0.3)
    policy_q = q1 + 0.2 + 0.8 * x + noise(0.05)
    values = {
        tags.ACTOR_LOSS: -policy_q,
        tags.CRITIC_LOSS: 4 + 6 * x + np.abs(noise(1)),
        tags.Q1_VALUE: q1,
        tags.Q2_VALUE: q1 + noise(0.1),
        tags.TARGET_Q_MEAN: q1 + noise(0.2),
        tags.POLICY_Q_VALUE: policy_q,
        tags.Q_GAP: policy_q - q1,
        tags.Q_BOUND: np.full(steps.size, 130.0),
        tags.GRADIENT_NORM["actor_mlp"]: 0.07 + x + np.abs(noise(0.05)),
        tags.GRADIENT_NORM["critic_cnn"]: 80 + 550 * x + np.abs(noise(40)),
        tags.GRADIENT_NORM["critic_mlp"]: 5 + 30 * x + np.abs(noise(2)),
        tags.CLIP_FRACTION["actor_mlp"]: np.clip(0.1 + noise(0.05), 0, 1),
        tags.CLIP_FRACTION["critic_cnn"]: np.ones(steps.size),
        tags.ALERT_WARNING: np.zeros(steps.size),
        tags.ALERT_CRITICAL: np.zeros(steps.size),
        tags.ACTION_SATURATION: np.clip(0.05 + noise(0.02), 0, 1),
        tags.ACTION_STD_MIN: 0.2 + np.abs(noise(0.02)),
        tags.PRE_TANH_ABS_MEAN: 0.5 + 0.5 * x,
        tags.HAS_ENCODER: np.ones(steps.size),
        tags.ENCODER_IS_SHARED: np.full(steps.size, float(shared_encoder)),
        tags.REWARD_IS_NORMALIZED: np.zeros(steps.size),
        tags.REWARD_MIN: -10 + noise(0.1),
        tags.REWARD_MAX: 1 + noise(0.01),
        tags.TARGET_MOVED["critic"]: np.ones(steps.size),
        tags.FRAME_STD: 40 + noise(2),
        tags.FRAME_CHANGE: 6 + noise(0.5),
        **{ratio: 1e-3 + np.abs(noise(1e-4)) for g, ratio in tags.UPDATE_RATIO.items() if g != "actor_cnn"},
    }
    if not shared_encoder:
        values[tags.GRADIENT_NORM["actor_cnn"]] = 0.02 + 0.3 * x + np.abs(noise(0.02))
        values[tags.UPDATE_RATIO["actor_cnn"]] = 1e-3 + np.abs(noise(1e-4))
        values[tags.CLIP_FRACTION["actor_cnn"]] = np.clip(0.05 + noise(0.02), 0, 1)
    run: Values = {tag: (steps, v) for tag, v in values.items()}
    run[tags.EPISODE_LENGTH] = _episodes(rng, last_step, 40, 160)
    evals = np.arange(1000, last_step + 1, 1000)
    run[tags.EVAL_DISTANCE] = (evals, 20 + 0.04 * evals)
    run[tags.EVAL_RANDOM_DISTANCE] = (evals, np.full(evals.size, 12.0))
    run[tags.EVAL_BRAKE_DISTANCE] = (evals, np.full(evals.size, 3.0))
    return run


def complete(seed: int = 0) -> Values:
    """Return a healthy run that logged every known tag, with two alerts active for a while."""
    run = healthy(seed)
    rng = np.random.default_rng(seed + 1)
    steps, _ = run[tags.Q1_VALUE]
    x = np.linspace(0, 1, steps.size)
    for i, term in enumerate(tags.REWARD_TERMS):
        sign = -1 if term in {"smoothness", "safety"} else 1
        run[tags.REWARD_TERM[term]] = (steps, sign * max(6 - i, 1) / 10 * (0.5 + x))
    for group in GROUP_NAMES:
        run[tags.GRADIENT_NORM_CLIPPED[group]] = (steps, np.minimum(run[tags.GRADIENT_NORM[group]][1], 10))
        run[tags.UPDATE_RATIO[group]] = (steps, 1e-3 * np.exp(-x) * rng.uniform(0.8, 1.2, steps.size))
    run[tags.CRITIC_1_LOSS] = (steps, run[tags.CRITIC_LOSS][1] * 0.55)
    run[tags.CRITIC_2_LOSS] = (steps, run[tags.CRITIC_LOSS][1] * 0.45)
    run[tags.REWARD_MIN], run[tags.REWARD_MAX] = (steps, np.full(steps.size, -2.0)), (steps, np.full(steps.size, 1.3))
    episodes, lengths = run[tags.EPISODE_LENGTH]
    run[tags.EPISODE_REWARD] = (episodes, lengths * 0.9)
    run[tags.EPISODE_COLLISIONS] = (episodes, (episodes % 3 == 0).astype(float))
    run[tags.EPISODE_LANE_INVASIONS] = (episodes, np.ones(episodes.size))
    run[tags.alert_of_rule("policy_extrapolation")] = (steps, ((x > 0.2) & (x < 0.3)).astype(float))
    run[tags.alert_of_rule("constant_clipping")] = (steps, ((x > 0.25) & (x < 0.4) | (x > 0.9)).astype(float))
    evals = run[tags.EVAL_DISTANCE][0]
    run[tags.EVAL_REWARD], run[tags.EVAL_SUCCESS_RATE] = (evals, 0.1 * evals), (evals, np.linspace(0, 1, evals.size))
    run[tags.FRAME_STD], run[tags.FRAME_CHANGE] = (steps, np.full(steps.size, 40.0)), (steps, np.full(steps.size, 5.0))
    for tag in tags.TAGS:
        level = 0.0 if tag.startswith("alerts/") else 1.0
        at = evals if tag.startswith("eval/") else steps
        run.setdefault(tag, (at, np.full(at.size, level)))
    return run


def dead_policy(seed: int = 0) -> Values:
    """Return a dead policy: every action at the end of its range, actor gradients 0, a normal critic."""
    run = healthy(seed)
    steps, _ = run[tags.ACTION_SATURATION]
    x = np.linspace(0, 1, steps.size)
    run[tags.ACTION_SATURATION] = (steps, np.minimum(1.0, 0.1 + 4 * x))
    run[tags.ACTION_STD_MIN] = (steps, 0.2 * np.exp(-20 * x))
    run[tags.PRE_TANH_ABS_MEAN] = (steps, 1 + 13 * x)
    run[tags.GRADIENT_NORM["actor_mlp"]] = (steps, 0.1 * np.exp(-40 * x))
    run[tags.GRADIENT_NORM["actor_cnn"]] = (steps, 0.02 * np.exp(-40 * x))
    run[tags.EVAL_DISTANCE] = (run[tags.EVAL_DISTANCE][0], np.full(run[tags.EVAL_DISTANCE][0].size, 2.5))
    return run


def leaking(seed: int = 0, clipped_norms: bool = False) -> Values:
    """Return a feature leak: the actor's loss and its encoder's gradient diverge while the critic stays calm."""
    run = healthy(seed)
    steps, _ = run[tags.ACTOR_LOSS]
    x = np.linspace(0, 1, steps.size)
    run[tags.ACTOR_LOSS] = (steps, -3 * np.exp(14 * x))
    run[tags.GRADIENT_NORM["actor_cnn"]] = (steps, np.full(steps.size, 1.9) if clipped_norms else 60 * np.exp(11 * x))
    run[tags.GRADIENT_NORM["actor_mlp"]] = (steps, 3e-3 * np.exp(-30 * x))
    run[tags.EPISODE_LENGTH] = _episodes(np.random.default_rng(seed), 5000, 60, 3)
    if not clipped_norms:
        active = (run[tags.GRADIENT_NORM["actor_cnn"]][1] > 50_000).astype(float)
        run[tags.ALERT_CRITICAL] = (steps, active)
    return run


def with_nan(seed: int = 0) -> Values:
    """Return a run whose critic loss becomes NaN at step 4,000."""
    run = healthy(seed)
    steps, loss = run[tags.CRITIC_LOSS]
    run[tags.CRITIC_LOSS] = (steps, np.where(steps >= 4000, np.nan, loss))
    return run


def foreign() -> Values:
    """Return a run of another library: few tags, most of them unknown to us."""
    steps = np.arange(500, 5001, 500)
    x = np.linspace(0, 1, steps.size)
    return {
        "rollout/ep_len_mean": (steps, 50 + 100 * x),
        "rollout/ep_rew_mean": (steps, -20 + 40 * x),
        "time/fps": (steps, np.full(steps.size, 90.0)),
        tags.ACTOR_LOSS: (steps, -1 - 10 * x),
        tags.CRITIC_LOSS: (steps, 3 + x),
    }


def _episodes(rng: np.random.Generator, n_steps: int, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
    lengths: list[float] = []
    while sum(lengths) < n_steps:
        x = sum(lengths) / n_steps
        lengths.append(max(1.0, round((first + (last - first) * x) * rng.uniform(0.7, 1.3))))
    return np.arange(len(lengths)), np.array(lengths)


def as_series(run: Values) -> SeriesSet:
    return SeriesSet.of(Series(tag, steps, values) for tag, (steps, values) in run.items())


def write_events(run: Values, folder: Path, name: str = "", start_time: float = 1000.0) -> Path:
    """Write a run as one event file, in the order of the steps, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    writer = EventFileWriter(str(folder))
    points = sorted(
        (int(s), tag, float(v)) for tag, (steps, values) in run.items() for s, v in zip(steps, values, strict=True)
    )
    for i, (step, tag, value) in enumerate(points):
        summary = summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, simple_value=value)])
        writer.add_event(event_pb2.Event(wall_time=start_time + i * 1e-3, step=step, summary=summary))
    writer.close()
    (file,) = set(folder.iterdir()) - before
    if name:
        file = Path(os.replace(file, folder / name) or folder / name)
    return file
