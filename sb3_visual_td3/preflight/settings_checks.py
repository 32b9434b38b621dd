"""Check that the settings fit each other and the task, in milliseconds, without stepping the environment."""

from __future__ import annotations

import math

import numpy as np
from gymnasium import spaces
from sb3_contrib import ARS
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_visual_td3.buffers.frame_replay_buffer import FrameReplayBuffer
from sb3_visual_td3.buffers.frame_store import available_bytes
from sb3_visual_td3.common.groups import GROUPS
from sb3_visual_td3.common.pictures import flattens, is_picture, looks_like_picture, parts_of, pictures_in
from sb3_visual_td3.common.schedules import noise_std
from sb3_visual_td3.preflight.findings import Examination

HIGH_RATE, LOW_RATE = 1e-2, 1e-6
"""At HIGH_RATE and above, training usually diverges. At LOW_RATE and below, a run learns nothing. The learning rates in
rl-zoo's tuned hyperparameters are 5e-5 to 7e-3."""
LATE_WARMUP = 0.5
"""The doctor warns if more than this fraction of the run passes before learning starts."""
SHORT_HORIZON_SHARE = 0.05
"""The discount is too small if its horizon, 1 / (1 - gamma), is shorter than this fraction of an episode."""
ENOUGH_HORIZON = 10.0
"""A horizon of this many steps is never called too short, however long the episodes are."""
LONG_HORIZON = 100.0
"""The doctor warns if the horizon is more than this many times as long as an episode. An episode of fewer than
100 steps counts as 100 steps."""
HIGH_TAU, LOW_TAU = 0.5, 1e-5
HIGH_NOISE, LOW_NOISE = 1.0, 0.01
"""Limits for the standard deviation of the noise on actions in [-1, 1]. Above HIGH_NOISE, at least 30 %
of the noisy actions are clipped to their limits. Below LOW_NOISE, the policy hardly explores."""
MEMORY_SHARE, CLOSE_SHARE = 1.0, 0.8
"""A replay buffer does not fit if it needs more than MEMORY_SHARE of the available memory. Above CLOSE_SHARE, the
doctor warns."""
_GIB = 1024.0**3


def check_settings(
    model: BaseAlgorithm, examination: Examination, n_timesteps: int, episode_length: float | None = None
) -> None:
    """Run all checks of a model's settings.

    :param model: the model, trained or not
    :param examination: collects the results
    :param n_timesteps: environment steps of the planned run
    :param episode_length: usual length of an episode in steps; None if unknown
    """
    _check_learning_rate(model, examination)
    _check_gamma(model, examination, episode_length)
    _check_normalized_pictures(model, examination)
    _check_picture_as_vector(model, examination)
    if not isinstance(model, OffPolicyAlgorithm):
        for name in ("buffer_memory", "warmup_beyond_run", "batch_beyond_buffer", "tau", "exploration_noise"):
            examination.skipped(name, f"{type(model).__name__} has no replay buffer")
        return
    _check_buffer(model, examination, n_timesteps)
    _check_warmup(model, examination, n_timesteps)
    examination.judge(
        "batch_beyond_buffer",
        model.batch_size > model.buffer_size,
        f"batch_size={model.batch_size} with buffer_size={model.buffer_size}",
        {"batch_size": model.batch_size, "buffer_size": model.buffer_size},
    )
    _check_n_steps(model, examination, episode_length)
    _check_tau(model, examination)
    _check_exploration(model, examination)


def _check_learning_rate(model: BaseAlgorithm, examination: Examination) -> None:
    """Check the learning rates at the start and in the middle of a run; at the end, a schedule may be 0."""
    if isinstance(model, ARS):
        examination.skipped("learning_rate", "ARS searches at random, and its rates are larger than those of gradients")
        return
    rates: dict[str, list[float]] = {"learning_rate": [float(model.lr_schedule(1.0)), float(model.lr_schedule(0.5))]}
    for group in GROUPS:
        given = getattr(model, group.rate_argument, None)
        if isinstance(given, float | int):
            rates[group.rate_argument] = [float(given)] * 2
    value = {name: each[0] for name, each in rates.items()}
    for name, each in rates.items():
        largest = max(each)
        if largest >= HIGH_RATE:
            examination.found("learning_rate", f"{name}={largest:g}: usual values are 1e-4 to 1e-3", value)
            return
        if largest <= LOW_RATE and name == "learning_rate":
            examination.found("learning_rate", f"{name}={largest:g}: the weights will hardly move", value)
            return
    examination.passed("learning_rate", value)


def _check_gamma(model: BaseAlgorithm, examination: Examination, episode_length: float | None) -> None:
    gamma = getattr(model, "gamma", None)
    if gamma is None:
        examination.skipped("gamma", "the algorithm has no discount")
        return
    horizon = math.inf
    if gamma < 1:
        horizon = 1.0 / (1.0 - gamma)
    value = {"gamma": gamma, "horizon": round(horizon, 2), "episode_length": episode_length}
    if gamma >= 1:
        evidence = (
            f"gamma={gamma:g}: the sum of future rewards is not bounded, but bootstrapping at time limits needs a bound"
        )
        examination.found("gamma", evidence, value)
        return
    length = episode_length
    if length is None:
        length = 100.0  # in most tasks, episodes are at least this long
    least = min(ENOUGH_HORIZON, length, max(SHORT_HORIZON_SHARE * length, 2.0))
    if horizon < least:
        evidence = f"gamma={gamma:g} looks {horizon:.1f} steps ahead, and an episode has about {length:.0f}"
        examination.found("gamma", evidence, value)
        return
    is_too_long = horizon > LONG_HORIZON * max(length, 100.0)
    evidence = f"gamma={gamma:g} looks {horizon:,.0f} steps ahead, and an episode has about {length:.0f}"
    examination.judge("gamma", is_too_long, evidence, value, severity="warning")


def _check_normalized_pictures(model: BaseAlgorithm, examination: Examination) -> None:
    normalizer = model.get_vec_normalize_env()
    if normalizer is None or not normalizer.norm_obs:
        examination.passed("normalized_pictures")
        return
    # These are the spaces before the normalizer, which converts pictures to floats.
    keys = list(pictures_in(normalizer.venv.observation_space))
    if normalizer.norm_obs_keys is not None:
        keys = [key for key in keys if key in normalizer.norm_obs_keys]
    evidence = f"VecNormalize has norm_obs=True, and {' and '.join(keys)} holds pictures"
    examination.judge("normalized_pictures", bool(keys), evidence, keys)


def _check_picture_as_vector(model: BaseAlgorithm, examination: Examination) -> None:
    """Look for observations that have the shape of a picture, but that the policy treats as vectors."""
    normalizer = model.get_vec_normalize_env()
    # A normalizer converts pictures to floats, which is another finding.
    space = model.observation_space if normalizer is None else normalizer.venv.observation_space
    if flattens(getattr(model.policy, "features_extractor_class", object)):
        images = {key: part for key, part in pictures_in(space).items() if looks_like_picture(part)}
        if images:
            shapes = " and ".join(f"{key} of shape {part.shape}" for key, part in images.items())
            evidence = f"the observations are images ({shapes}), but the policy is MlpPolicy, which has no CNN"
            remedy = "Use CnnPolicy."
            examination.found("picture_as_vector", evidence, list(images), severity="problem", remedy=remedy)
            return
    is_scaled = not getattr(model.policy, "normalize_images", True)
    found = {
        key: f"{key} has the shape {part.shape}, and is {part.dtype} from {np.min(part.low):g} to {np.max(part.high):g}"
        for key, part in parts_of(space).items()
        if isinstance(part, spaces.Box) and looks_like_picture(part) and not is_picture(part, is_scaled)
    }
    examination.judge("picture_as_vector", bool(found), "; ".join(found.values()), list(found))


def check_target_clamp(model: BaseAlgorithm, examination: Examination, expected_return: float) -> None:
    """Compare a fixed ``target_q_clamp`` of VisualTD3 with the returns of a random policy.

    :param model: the model to check
    :param examination: collects the results
    :param expected_return: typical magnitude of a discounted return of a random policy, >= 0
    """
    clamp = getattr(getattr(model, "settings", None), "target_q_clamp", False)
    if isinstance(clamp, bool):
        examination.skipped("target_clamp", "no fixed limit")
        return
    evidence = f"target_q_clamp={clamp:g}, but a random policy already has returns of {expected_return:.3g}"
    examination.judge("target_clamp", clamp < expected_return, evidence, clamp)


def buffer_bytes(model: OffPolicyAlgorithm) -> int:
    """Return the number of bytes of a full replay buffer."""
    buffer = model.replay_buffer
    if isinstance(buffer, FrameReplayBuffer):
        return buffer.n_bytes
    per_step = 0
    for part in parts_of(model.observation_space).values():
        assert part.shape is not None
        per_step += int(np.prod(part.shape)) * np.dtype(part.dtype).itemsize
    # Stable-Baselines3's buffer also stores the next observation, except with optimize_memory_usage.
    n_copies = 1 if model.optimize_memory_usage else 2
    # Each step also has its action, and a reward, a done and a timeout of 4 bytes each. The buffer stores actions of
    # dtype float64 as float32.
    dtype = np.dtype(model.action_space.dtype)
    action_bytes = 4 if dtype == np.float64 else dtype.itemsize
    small = get_action_dim(model.action_space) * action_bytes + 3 * 4
    return int(model.buffer_size) * (n_copies * per_step + small)


def _check_buffer(model: OffPolicyAlgorithm, examination: Examination, n_timesteps: int) -> None:
    available = available_bytes()
    if available is None or not isinstance(model.replay_buffer, ReplayBuffer):
        examination.skipped("buffer_memory", "the available memory or the size of the buffer is not known")
        return
    needed = buffer_bytes(model)
    # A buffer larger than the run is never filled, and memory that was never written is not used.
    needed = int(needed * min(1.0, n_timesteps / max(model.buffer_size, 1)))
    share = needed / max(available, 1)
    evidence = f"the buffer needs up to {needed / _GIB:.1f} GiB, and {available / _GIB:.1f} GiB are available"
    value = {"needed_gib": round(needed / _GIB, 2), "available_gib": round(available / _GIB, 2)}
    if share > MEMORY_SHARE:
        examination.found("buffer_memory", evidence, value)
    else:
        examination.judge("buffer_memory", share > CLOSE_SHARE, evidence, value, severity="warning")


def _check_warmup(model: OffPolicyAlgorithm, examination: Examination, n_timesteps: int) -> None:
    share = model.learning_starts / max(n_timesteps, 1)
    evidence = f"learning_starts={model.learning_starts:,} of {n_timesteps:,} steps"
    value = {"learning_starts": model.learning_starts, "n_timesteps": n_timesteps}
    if share >= 1:
        examination.found("warmup_beyond_run", f"{evidence}: no update will be made", value)
    else:
        examination.judge("warmup_beyond_run", share > LATE_WARMUP, evidence, value, severity="warning")


def _check_n_steps(model: OffPolicyAlgorithm, examination: Examination, episode_length: float | None) -> None:
    n_steps = getattr(model, "n_steps", 1)
    if episode_length is None or n_steps <= 1:
        if n_steps <= 1:
            examination.passed("n_steps_beyond_episode", n_steps)
        else:
            examination.skipped("n_steps_beyond_episode", "the length of episodes is not known")
        return
    evidence = f"n_steps={n_steps}, and an episode has about {episode_length:.0f} steps"
    examination.judge("n_steps_beyond_episode", n_steps > episode_length / 2, evidence, n_steps)


def _check_tau(model: OffPolicyAlgorithm, examination: Examination) -> None:
    # SAC, TQC, DQN and QR-DQN update their target networks every target_update_interval steps.
    interval = getattr(model, "target_update_interval", None)
    if interval is None and not hasattr(model, "critic_target"):
        examination.skipped("tau", f"{type(model).__name__} has no target networks")
        return
    tau = float(model.tau)
    if tau == 0:
        examination.found("target_frozen", "tau=0: the target networks keep their first weights", tau)
        return
    # A large tau is right if the weights are copied rarely: with DQN's defaults, all of them every 10,000 steps.
    is_too_high = tau >= HIGH_TAU and (interval is None or interval <= 1)
    evidence = f"tau={tau:g}: usual values are 0.005 to 0.02"
    examination.judge("tau", is_too_high or tau <= LOW_TAU, evidence, tau)


def _check_exploration(model: OffPolicyAlgorithm, examination: Examination) -> None:
    """Check the action noise of TD3, DDPG and VisualTD3; other algorithms explore without it."""
    if not hasattr(model, "target_policy_noise"):
        examination.skipped("exploration_noise", f"{type(model).__name__} explores without action noise")
        return
    if model.action_noise is None:
        examination.found(
            "exploration_noise", "action_noise is None: after the warm-up every action is the policy's own", 0.0
        )
        return
    sigma = noise_std(model.action_noise)
    if sigma is None:
        examination.skipped("exploration_noise", f"{type(model.action_noise).__name__} has no standard deviation")
        return
    if sigma > HIGH_NOISE:
        kind = type(model.action_noise).__name__
        evidence = (
            f"{kind} has a standard deviation of {sigma:g} on actions from -1 to 1: at least 30 % of the noisy actions "
            "are clipped to their limits"
        )
        examination.found("exploration_noise", evidence, sigma, remedy="Use 0.1 to 0.5.")
        return
    evidence = f"a standard deviation of {sigma:g} on actions from -1 to 1"
    examination.judge("exploration_noise", sigma < LOW_NOISE, evidence, sigma)
