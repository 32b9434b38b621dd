"""Check an environment: its observations, the effects of actions, starts and ends of episodes, and rewards.

All rollouts have random actions. Most checks use one long rollout. Paired rollouts are short rollouts that are compared
with each other, to find whether the seed and the actions have an effect.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit
from numpy.typing import NDArray
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecEnv

from sb3_visual_td3.common.pictures import channels_are_last, parts_of
from sb3_visual_td3.common.types import INVALID_TRANSITION, SIMULATOR_FAILURE
from sb3_visual_td3.preflight.findings import Examination, Progress
from sb3_visual_td3.preflight.rollouts import (
    EnvironmentFailedError,
    Rollout,
    environment_called,
    gym_env_of,
    random_actions,
    roll_out,
)

RewardScaling = Literal["VecNormalize", "VisualTD3"]
"""What may scale the rewards of the environment before the critics see them."""

N_STEPS = 2_000
"""The long rollout, which most checks use, has at most this many steps, unless the user gives another number."""
N_PAIRED_STEPS = 30
"""Maximum number of steps of the short rollouts that are compared with each other. The number is a guess: after this
many steps, the effect of an action should be visible in the picture."""
N_RESETS = 3
"""Number of further seeds whose rollouts are compared with the rollout of the first seed."""
SEED = 2_000_003
"""Seed of the first rollout, far from the seeds that are usual in training."""
LONG_ROLLOUT_S = 15.0
"""Time limit of the long rollout in seconds."""
PAIRED_S = 2.0
"""Time limit of the first short rollout in seconds. The other short rollouts make as many steps as the first, without a
time limit."""
N_EPISODES = 3
"""The lengths of episodes are judged only if at least this many episodes have ended."""

DEAD_STD = 1.0
"""A frame has no contrast if the standard deviation of its pixels is below this value, in grey levels from 0 to 255."""
DEAD_SHARE = 0.95
"""The camera is dead if at least this fraction of the frames have no contrast. The camera is frozen if at least this
fraction of the frames are equal to their previous frame."""
SHORT_EPISODE = 3
"""Episodes count as too short if their median length is at most this many steps."""
MIN_STEPS_WITHOUT_END = 200
"""Episodes count as endless if no episode ended in this many steps."""
MIN_LIMIT = 10
"""If the three longest episodes have the same length, of at least this many steps, a time limit probably ends them."""
MIN_LIMIT_OF_TWO = 50
"""If the two longest episodes have the same length, of at least this many steps, a time limit probably ends them."""
SPARSE_SHARE = 0.01
"""Rewards count as sparse if less than this fraction of them differs from the most frequent reward."""
MAX_RETURN, LARGE_RETURN, MIN_RETURN = 5e3, 1e3, 5e-2
"""Limits for the discounted return of a random policy, all guesses. Above MAX_RETURN or below MIN_RETURN, networks
hardly learn. Above LARGE_RETURN, they may not learn."""
A_DAY_S = 24 * 3600.0


def check_environment(
    env: VecEnv,
    examination: Examination,
    gamma: float,
    n_timesteps: int,
    n_steps: int,
    rewards_scaled_by: RewardScaling | None,
    progress: Progress,
) -> Rollout:
    """Run all checks of an environment.

    :param env: the environments of the model; call this inside ``with`` :func:`~.rollouts.unobserved`
    :param examination: collects the results
    :param gamma: discount per step, in [0, 1]
    :param n_timesteps: environment steps of the planned run
    :param n_steps: maximum number of steps of the long rollout
    :param rewards_scaled_by: what scales the rewards in the training; None if nothing does
    :param progress: function called with the name of each part
    :return: the long rollout
    :raises EnvironmentFailedError: if an environment raises an exception
    """
    progress("the environment's spaces")
    _check_spaces(env, examination)
    progress("a rollout with random actions")
    rollout = _long_rollout(env, n_steps)
    check_observations(rollout, env.observation_space, examination)
    check_episodes(rollout, _time_limit_of(env), examination)
    check_rewards(rollout, gamma, rewards_scaled_by, examination)
    _check_speed(rollout, env.num_envs, n_timesteps, examination)
    check_simulator(rollout, gym_env_of(env), examination)
    progress("paired rollouts")
    _check_seed_and_actions(env, examination)
    return rollout


def _long_rollout(env: VecEnv, n_steps: int) -> Rollout:
    """Play random actions until some episodes have ended, or until the limit of steps or time is reached."""

    def is_enough(rollout: Rollout) -> bool:
        if rollout.seconds > LONG_ROLLOUT_S:
            return True
        n_ended = int(np.sum(rollout.dones))
        return rollout.n_steps >= n_steps // 2 and n_ended >= 2 * N_EPISODES

    return roll_out(env, random_actions(env, n_steps, SEED), SEED, is_enough)


def _check_spaces(env: VecEnv, examination: Examination) -> None:
    """Run Stable-Baselines3's checker on an environment; a VecEnv casts values and so hides a wrong dtype."""
    inner = gym_env_of(env)
    if inner is None:
        examination.skipped("space_mismatch", "the environment runs in another process")
        return
    checked = _without_stock_wrappers(inner)
    # The checker calls compute_reward(), which wrappers do not have.
    if hasattr(checked.unwrapped, "compute_reward"):
        checked = checked.unwrapped
    else:
        checked = _PythonScalars(checked)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            _check_returned(inner)
            # The checker seeds, resets and steps. The environments are reset again before each rollout.
            check_env(checked, warn=True, skip_render_check=True)
        except EnvironmentFailedError:
            raise
        except (AssertionError, TypeError, ValueError) as error:
            examination.found("space_mismatch", " ".join(str(error).split())[:300], type(error).__name__)
            return
        except Exception as error:
            raise EnvironmentFailedError from error
    examination.passed("space_mismatch", [str(each.message).split("\n")[0][:160] for each in caught][:5])


def _without_stock_wrappers(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return an environment without the wrappers of ``gym.make`` and Monitor, but with the user's own wrappers.

    A wrapper of the user may correct the environment, for example its dtype.
    """
    while isinstance(env, Monitor | TimeLimit | OrderEnforcing | PassiveEnvChecker):
        env = env.env
    return env


class _PythonScalars(gym.Wrapper[Any, Any, Any, Any]):
    """Return NumPy scalars of ``step()`` as Python numbers: VecEnvs accept both, but the checker only the latter."""

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Reset with the given arguments only: VecEnvs pass ``options`` only if there are any."""
        return self.env.reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Make a step, and convert the reward and the two flags."""
        observation, *scalars, info = self.env.step(action)
        reward, terminated, truncated = (
            value.item() if isinstance(value, np.generic | np.ndarray) and value.ndim == 0 else value
            for value in scalars
        )
        return observation, reward, terminated, truncated, info


def _check_returned(env: gym.Env[Any, Any]) -> None:
    """Check that returned observations are in the observation space, which VecEnvs do not check."""
    with environment_called():
        observations = [env.reset(seed=SEED)[0]]
    env.action_space.seed(SEED)
    for _ in range(3):
        with environment_called():
            observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        observations.append(observation)
        if terminated or truncated:
            break
    for observation in observations:
        for key, space in parts_of(env.observation_space).items():
            value = observation
            if isinstance(env.observation_space, spaces.Dict):
                if key not in observation:
                    raise ValueError(f"the observation lacks {key}, which observation_space has")
                value = observation[key]
            _check_part(key, space, np.asarray(value))


def _check_part(key: str, space: spaces.Space[Any], value: NDArray[Any]) -> None:
    if not isinstance(space, spaces.Box):
        return
    if value.shape != space.shape:
        raise ValueError(f"{key} has the shape {value.shape}, but observation_space has {space.shape}")
    if value.dtype != space.dtype:
        raise ValueError(f"{key} has the dtype {value.dtype}, but observation_space has {space.dtype}")
    if np.isfinite(value).all() and not space.contains(value):
        raise ValueError(
            f"{key} has values from {value.min():g} to {value.max():g}, but observation_space allows "
            f"{space.low.min():g} to {space.high.max():g}"
        )


# ---- observations


def check_observations(rollout: Rollout, space: spaces.Space[Any], examination: Examination) -> None:
    """Check the contrast, change, scale and stack order of pictures, and that all observations are finite.

    :param rollout: steps with random actions
    :param space: the learner's observation space
    :param examination: collects the results
    """
    values_by_key = rollout.parts()
    is_finite = all(
        np.isfinite(np.asarray(each, np.float64)).all() for values in values_by_key.values() for each in values
    )
    examination.judge("non_finite_observation", not is_finite, "an observation holds NaN or infinity")
    pictures = {
        key: part for key, part in parts_of(space).items() if isinstance(part, spaces.Box) and len(part.shape) == 3
    }
    if not pictures:
        for name in ("dead_camera", "frozen_camera", "scaled_pixels", "stack_order"):
            examination.skipped(name, "no pictures among the observations")
    for key, picture in pictures.items():
        # (steps, n_envs, channels, height, width)
        frames = np.stack(values_by_key[key if key in values_by_key else ""])
        if channels_are_last(picture):
            frames = frames.transpose(0, 1, 4, 2, 3)
        named = f"{key}: " if key in values_by_key else ""
        is_dead = _check_contrast(frames, picture, named, examination)
        _check_change(frames, rollout, named, is_dead, examination)
        _check_scale(frames, picture, named, examination)
        _check_stack(frames, rollout, named, examination)


def _grey_levels_per_unit(frames: NDArray[Any], picture: spaces.Box) -> float:
    """Return the factor that scales pixel values to the range of 0 to 255.

    For float pixels, the largest magnitude in ``frames`` becomes 255.
    """
    if np.issubdtype(picture.dtype, np.integer):
        return 1.0
    return 255.0 / max(float(np.abs(frames).max()), 1e-12)


def _check_contrast(frames: NDArray[Any], picture: spaces.Box, named: str, examination: Examination) -> bool:
    """Check that the frames have contrast, and return whether the camera is dead."""
    # deviations, (steps, n_envs): the contrast within the newest channel of each observation, in grey levels.
    deviations = frames[:, :, -1].astype(np.float32).std(axis=(-2, -1)) * _grey_levels_per_unit(frames, picture)
    share = float((deviations < DEAD_STD).mean())
    # Pixels of 0 to 1 in a space of 0 to 255 also have no contrast in grey levels, but they are reported as scaled
    # pixels.
    if np.issubdtype(picture.dtype, np.integer) and 0 < frames.max() <= 1:
        examination.skipped("dead_camera", "the pixels are scaled")
        return False
    is_dead = share >= DEAD_SHARE
    mean = float(frames.mean())
    examination.judge(
        "dead_camera",
        is_dead,
        f"{named}{share:.0%} of {deviations.size} frames have a standard deviation below {DEAD_STD:g} grey level; the "
        f"mean value is {mean:.3g}",
        {"std": round(float(deviations.mean()), 3), "mean": round(mean, 3)},
    )
    return is_dead


def _continued(rollout: Rollout) -> NDArray[np.bool_]:
    """Return whether each observation is in the same episode as the previous observation, ``(steps, n_envs)``."""
    return ~np.stack(rollout.dones)


def _check_change(frames: NDArray[Any], rollout: Rollout, named: str, is_dead: bool, examination: Examination) -> None:
    # (steps, n_envs)
    is_equal = (frames[:-1] == frames[1:]).all(axis=(2, 3, 4))
    continued = _continued(rollout)
    if not continued.any():
        examination.skipped("frozen_camera", "every episode ended after one step")
        return
    if is_dead:
        examination.skipped("frozen_camera", "the camera shows nothing")
        return
    # If the rewards do not change either, but a reset changes the picture, the camera works and nothing moves.
    rewards = np.stack(rollout.rewards)
    rewards_vary = bool((rewards[1:] != rewards[:-1])[continued[:-1]].any())
    resets_show = bool((~is_equal[~continued]).any())
    if is_equal[continued].all() and resets_show and not rewards_vary:
        examination.skipped("frozen_camera", "pictures and rewards change only at resets, so nothing moves")
        return
    share = float(is_equal[continued].mean())
    examination.judge(
        "frozen_camera",
        share >= DEAD_SHARE,
        f"{named}{share:.0%} of {int(continued.sum())} pictures equal the previous picture, bit for bit",
        {"share_of_repeats": round(share, 4)},
    )


def _check_scale(frames: NDArray[Any], picture: spaces.Box, named: str, examination: Examination) -> None:
    largest = float(frames.max())
    high = float(picture.high.max())
    evidence = (
        f"{named}the largest pixel value of {len(frames)} pictures is {largest:.3g}, but the space allows up to "
        f"{high:g}"
    )
    # A camera whose pictures are always black is dead, whatever the scale of the pixels. An unbounded space holds
    # features, which have no scale.
    is_scaled = high >= 255 and math.isfinite(high) and 0 < largest <= 1
    # A white pixel that is divided by 255 twice has the value 1 / 255.
    is_scaled_twice = high == 1 and 0 < largest <= 1.001 / 255
    examination.judge("scaled_pixels", is_scaled or is_scaled_twice, evidence, largest)


def _check_stack(frames: NDArray[Any], rollout: Rollout, named: str, examination: Examination) -> None:
    """Check that a stack of frames has its oldest frame first.

    In such a stack, each frame moves towards channel 0 at every step.
    """
    n_channels = frames.shape[2]
    continued = _continued(rollout)
    if n_channels < 2 or not continued.any():
        examination.skipped("stack_order", "one channel: no stack")
        return
    old, new = frames[:-1][continued], frames[1:][continued]
    has_changed = np.array([not np.array_equal(a, b) for a, b in zip(old, new, strict=True)])
    # Comparing all channels with all other channels is slow, and some steps are enough.
    old, new = old[has_changed][:50], new[has_changed][:50]
    if len(old) < 5:
        examination.skipped("stack_order", "the picture hardly changes")
        return
    # (new channel, old channel): fraction of the steps in which a channel of the new picture equals a channel of the
    # old one.
    matches = np.array(
        [
            [float((new[:, i] == old[:, j]).all(axis=(-2, -1)).mean()) for j in range(n_channels)]
            for i in range(n_channels)
        ]
    )
    for depth in range(n_channels, 1, -1):
        if n_channels % depth:
            continue
        width = n_channels // depth
        # In a stack with the oldest frame first, every frame except the newest was one index higher a step ago.
        in_order = all(matches[i, i + width] > DEAD_SHARE for i in range(n_channels - width))
        if in_order:
            examination.passed("stack_order", {"frames": depth})
            return
    moved = [(i, j) for i in range(n_channels) for j in range(n_channels) if i != j and matches[i, j] > DEAD_SHARE]
    if len({i for i, _ in moved}) >= max(n_channels // 2, 1):
        i, j = moved[0]
        evidence = (
            f"{named}channel {i} shows the frame that channel {j} showed one step before; in a stack with the oldest "
            f"frame first it would be channel {i + 1}"
        )
        if all(j < i for i, j in moved):
            evidence = (
                f"{named}the newest frame comes first: channel {i} shows the frame that channel {j} showed one step "
                "before"
            )
        examination.found("stack_order", evidence, moved[:8])
        return
    examination.skipped("stack_order", "no channel reappears at the next step, so the frames are not stacked")


# ---- episodes


def _time_limit_of(env: VecEnv) -> int | None:
    """Return the time limit of an episode in steps, from TimeLimit or the gymnasium registration; None if unknown."""
    inner = gym_env_of(env)
    while inner is not None:
        if isinstance(inner, gym.wrappers.TimeLimit):
            return int(inner._max_episode_steps)
        if inner.spec is not None and inner.spec.max_episode_steps is not None:
            return int(inner.spec.max_episode_steps)
        inner = inner.env if isinstance(inner, gym.Wrapper) else None
    return None


def check_episodes(rollout: Rollout, time_limit: int | None, examination: Examination) -> None:
    """Check how long episodes are and how they end.

    :param rollout: steps with random actions
    :param time_limit: maximum number of steps of an episode; None if unknown
    :param examination: collects the results
    """
    episodes = rollout.episodes()
    lengths = [length for length, _ in episodes]
    if not episodes and rollout.n_steps < MIN_STEPS_WITHOUT_END:
        examination.skipped("endless_episodes", f"{rollout.n_steps} steps are too few to judge the end of episodes")
    else:
        evidence = (
            f"none of the {rollout.n_steps} steps with random actions ended an episode, and no time limit is known"
        )
        examination.judge("endless_episodes", not episodes and time_limit is None, evidence, {"ended": len(episodes)})
    if len(episodes) < N_EPISODES:
        for name in ("short_episodes", "time_limit_terminates"):
            examination.skipped(name, f"{len(episodes)} episodes ended within {rollout.n_steps} steps")
        return
    median = float(np.median(lengths))
    examination.judge(
        "short_episodes",
        median <= SHORT_EPISODE,
        f"the median of {len(lengths)} episodes is {median:g} steps, with random actions",
        {"median_length": median},
    )
    terminated = [length for length, is_truncated in episodes if not is_truncated]
    longest = max(lengths)
    n_longest = terminated.count(longest)
    # Episodes that end by an event of the task have different lengths, and it is rare that two of them share the
    # largest length.
    looks_like_a_limit = n_longest >= N_EPISODES and longest >= MIN_LIMIT
    looks_like_a_limit |= n_longest >= 2 and longest >= MIN_LIMIT_OF_TWO
    looks_like_a_limit |= n_longest >= 1 and longest == time_limit
    examination.judge(
        "time_limit_terminates",
        looks_like_a_limit,
        f"{n_longest} of {len(lengths)} episodes have the largest length, exactly {longest} steps, and end with "
        "terminated=True",
        {"longest": longest, "truncated": len(lengths) - len(terminated), "episodes": len(lengths)},
    )


# ---- rewards


def check_rewards(rollout: Rollout, gamma: float, scaled_by: RewardScaling | None, examination: Examination) -> None:
    """Check that rewards are finite and vary, and that the returns have a size that networks can learn.

    :param rollout: steps with random actions and unscaled rewards
    :param gamma: discount per step, in [0, 1]
    :param scaled_by: what scales the rewards before the critics see them; None if nothing does
    :param examination: collects the results
    """
    rewards = rollout.all_rewards()
    n_bad = int((~np.isfinite(rewards)).sum())
    examination.judge("non_finite_reward", n_bad > 0, f"{n_bad} of {rewards.size} rewards are NaN or infinite", n_bad)
    rewards = rewards[np.isfinite(rewards)]
    if rewards.size == 0:
        for name in ("constant_reward", "sparse_reward", "reward_scale"):
            examination.skipped(name, "no finite reward")
        return
    values, counts = np.unique(rewards, return_counts=True)
    usual = float(values[counts.argmax()])
    examination.judge(
        "constant_reward",
        len(values) == 1,
        f"all {rewards.size} rewards with random actions are {usual:g}",
        {"different_values": len(values)},
    )
    share = 1.0 - float(counts.max()) / rewards.size
    examination.judge(
        "sparse_reward",
        len(values) > 1 and share < SPARSE_SHARE,
        f"{share:.2%} of {rewards.size} rewards differ from the usual reward, {usual:g}",
        {"share_that_differs": round(share, 4)},
    )
    _check_reward_scale(rollout, rewards, gamma, scaled_by, examination)
    terms = _reward_terms(rollout)
    if terms:
        examination.passed("reward_terms", terms)


def _check_reward_scale(
    rollout: Rollout,
    rewards: NDArray[np.float64],
    gamma: float,
    scaled_by: RewardScaling | None,
    examination: Examination,
) -> None:
    size, horizon = _size_and_horizon(rollout, rewards, gamma)
    expected = size * horizon
    if scaled_by == "VecNormalize":
        examination.passed("reward_scale", {"return": round(expected, 4), "normalized": True})
        return
    if size == 0:
        examination.skipped("reward_scale", "all rewards are 0")
        return
    evidence = (
        f"rewards of {size:.3g} (root mean square) over {horizon:.0f} steps add up to returns of {expected:.3g}; "
        f"without normalization, returns of {MIN_RETURN:g} to {LARGE_RETURN:g} are usual"
    )
    value = {"return": round(expected, 6), "normalized": scaled_by is not None}
    is_far_off = not MIN_RETURN <= expected <= MAX_RETURN
    if is_far_off and scaled_by == "VisualTD3":
        remedy = (
            "VisualTD3 can learn from these rewards, because it divides them by their mean magnitude (scale_rewards). "
            "But look for a unit that changed, or a reward term without a weight, because scaling hides such mistakes."
        )
        examination.found("reward_scale", evidence, value, "warning", remedy)
    elif is_far_off:
        examination.found("reward_scale", evidence, value)
    elif scaled_by == "VisualTD3":
        examination.passed("reward_scale", value)
    else:
        examination.judge("reward_scale", expected > LARGE_RETURN, evidence, value, severity="warning")


def _size_and_horizon(rollout: Rollout, rewards: NDArray[np.float64], gamma: float) -> tuple[float, float]:
    """Return the root mean square of the rewards, and the number of steps over which a return effectively sums them."""
    size = float(np.sqrt((rewards**2).mean()))
    lengths = [length for length, _ in rollout.episodes()] or [rollout.n_steps]
    horizon = float(np.mean(lengths))
    if gamma < 1:
        horizon = min(horizon, 1.0 / (1.0 - gamma))
    return size, horizon


def discounted_return(rollout: Rollout, gamma: float) -> float:
    """Estimate how large a discounted return typically is, from the rewards of a rollout; 0 without a finite reward.

    :param rollout: steps with random actions
    :param gamma: discount per step, in [0, 1]
    """
    rewards = rollout.all_rewards()
    rewards = rewards[np.isfinite(rewards)]
    if rewards.size == 0:
        return 0.0
    size, horizon = _size_and_horizon(rollout, rewards, gamma)
    return size * horizon


def _reward_terms(rollout: Rollout) -> dict[str, float]:
    """Return each reward term's share of the sum of all terms' absolute values; empty if ``info`` has no terms."""
    sums: dict[str, float] = {}
    for infos in rollout.infos:
        for info in infos:
            terms = info.get("reward_terms")
            if not isinstance(terms, Mapping):
                return {}
            for name, value in terms.items():
                sums[str(name)] = sums.get(str(name), 0.0) + abs(float(value))
    total = sum(sums.values())
    if total <= 0 or not math.isfinite(total):
        return {}
    return {name: round(value / total, 3) for name, value in sums.items()}


def _check_speed(rollout: Rollout, n_envs: int, n_timesteps: int, examination: Examination) -> None:
    steps_per_second = rollout.n_steps * n_envs / max(rollout.seconds, 1e-9)
    hours = n_timesteps / steps_per_second / 3600
    examination.judge(
        "slow_environment",
        n_timesteps / steps_per_second > A_DAY_S,
        f"{steps_per_second:.1f} steps/s: {n_timesteps:,} steps take {hours:.0f} hours, not counting the updates",
        {"steps_per_second": round(steps_per_second, 1), "hours": round(hours, 2)},
    )


def check_simulator(rollout: Rollout, env: gym.Env[Any, Any] | None, examination: Examination) -> None:
    """Count the steps that a simulator outside this process failed to make.

    :param rollout: steps with random actions
    :param env: the environment; None if it runs in another process
    :param examination: collects the results
    """
    address = getattr(env.unwrapped, "server_address", None) if env is not None else None
    failures = [info for infos in rollout.infos for info in infos if info.get(INVALID_TRANSITION)]
    if address is None and not failures:
        examination.skipped("invalid_steps", "the environment is not known to use a simulator outside this process")
        return
    seconds = rollout.seconds / max(rollout.n_steps, 1)
    server = ":".join(map(str, address)) if isinstance(address, tuple) else str(address)
    value = {"server": server, "invalid": len(failures), "ms_per_step": round(1_000 * seconds, 1)}
    evidence = f"the simulator failed or was late in {len(failures)} of {rollout.n_steps} steps"
    if failures:
        evidence += f": {failures[0].get(SIMULATOR_FAILURE, 'no reason is given')}"
    examination.judge("invalid_steps", bool(failures), evidence, value)


# ---- paired rollouts


def _check_seed_and_actions(env: VecEnv, examination: Examination) -> None:
    names = ("seed_ignored", "identical_resets", "action_without_effect")
    actions = random_actions(env, N_PAIRED_STEPS, SEED)
    others = random_actions(env, N_PAIRED_STEPS, SEED + 1)

    def play(each: Sequence[NDArray[Any]], seed: int) -> Rollout:
        return roll_out(env, each, seed, lambda rollout: rollout.seconds > PAIRED_S)

    first = play(actions, SEED)
    # The first rollout has a time limit of PAIRED_S seconds. All others make as many steps as the first, without a time
    # limit, so a busy machine cannot make them differ.
    actions, others = actions[: first.n_steps], others[: first.n_steps]
    if not actions:
        for name in names:
            examination.skipped(name, "no step could be made")
        return
    again = roll_out(env, actions, SEED)
    step = first.first_difference(again)
    is_repeated = first.is_same_as(again)
    if step == 0:
        examination.found("seed_ignored", "two resets with the same seed return different observations", 0)
    elif not is_repeated:
        # A simulator outside this process may give slightly different results each time.
        evidence = (
            f"two rollouts with the same seed and actions have different observations or rewards from step {step or 1} "
            "on"
        )
        examination.found("seed_ignored", evidence, step, severity="warning")
    else:
        examination.passed("seed_ignored")
    different = [roll_out(env, actions, SEED + 1 + n) for n in range(N_RESETS)]
    examination.judge(
        "identical_resets",
        is_repeated and all(first.is_same_as(each) for each in different),
        f"{N_RESETS + 1} different seeds, with the same {len(actions)} actions, give the same observations and rewards",
        None,
    )
    if not is_repeated:
        examination.skipped("action_without_effect", "the environment cannot be repeated with a seed")
        return
    _check_each_action(env, first, actions, others, examination)


def _check_each_action(
    env: VecEnv,
    first: Rollout,
    actions: Sequence[NDArray[Any]],
    others: Sequence[NDArray[Any]],
    examination: Examination,
) -> None:
    """Check that each action dimension has an effect, by replacing its values with those in ``others``."""
    shape = actions[0].shape[1:]
    without: list[str] = []
    for index in np.ndindex(shape):
        changed = [each.copy() for each in actions]
        # The dimension is replaced in all parallel environments.
        place = (slice(None), *index)
        for mine, other in zip(changed, others, strict=True):
            mine[place] = other[place]
        if first.is_same_as(roll_out(env, changed, SEED)):
            without.append(", ".join(map(str, index)))
    n_dimensions = math.prod(shape)
    examination.judge(
        "action_without_effect",
        bool(without),
        f"action dimension {' and '.join(without)} of {n_dimensions}: different action values in {len(actions)} steps "
        "change no observation and no reward",
        without,
    )
