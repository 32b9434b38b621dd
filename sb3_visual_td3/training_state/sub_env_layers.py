"""Which wrappers stand around each environment of a VecEnv, and whether all of it can be resumed exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

Names = list[str]
"""Class names of the wrappers around one environment, the outermost first, and of the environment itself."""

_TIME_LIMIT = ("_elapsed_steps",)
COUNTERS: dict[str, tuple[str, ...]] = {
    "Monitor": (
        "rewards",
        "needs_reset",
        "episode_returns",
        "episode_lengths",
        "episode_times",
        "total_steps",
        "current_reset_info",
        "t_start",
    ),
    "TimeLimit": _TIME_LIMIT,
    "PatchedTimeLimit": _TIME_LIMIT,  # rl-zoo's
    "TimeAwareObservation": ("timesteps",),
    "StickyAction": ("last_action", "is_sticky_actions", "num_repeats", "repeats_taken"),
    "TimeFeatureWrapper": ("_current_step",),
    "TruncatedOnSuccessWrapper": ("current_successes",),
    "ActionSmoothingWrapper": ("smoothed_action",),
    "DelayedRewardWrapper": ("current_step", "accumulated_reward"),
    "HistoryWrapper": ("obs_history", "action_history"),
    "HistoryWrapperObsDict": ("obs_history", "action_history"),
}
"""What wrappers of gymnasium, Stable-Baselines3 and rl-zoo remember, by class name."""

_WITHOUT_STATE = frozenset(
    {
        "OrderEnforcing",
        "PassiveEnvChecker",
        "ClipAction",
        "ClipReward",
        "ClipRewardEnv",
        "DtypeObservation",
        "FilterObservation",
        "FlattenObservation",
        "FrameSkip",
        "GrayscaleObservation",
        "MaskVelocityWrapper",
        "RepeatAction",
        "RescaleAction",
        "RescaleObservation",
        "ReshapeObservation",
        "ResizeObservation",
        "WarpFrame",
        "YAMLCompatResizeObservation",
    }
)


def sub_env_names(base: VecEnv) -> list[Names] | None:
    """Find the wrappers around each environment.

    :param base: a VecEnv without its layers
    :return: for each environment the class names; None where the VecEnv, or a ``__str__``, does not tell
    """
    if isinstance(base, DummyVecEnv):
        return [_names_around(env) for env in base.envs]
    try:
        names = [parse_names(text) for text in base.env_method("__str__")]
    except (EOFError, ConnectionError):  # a worker has died: this is no property of the VecEnv
        raise
    except Exception:  # a VecEnv of the user's may raise anything for what it does not offer
        return None
    return [each for each in names if each is not None] if None not in names else None


def _names_around(env: gym.Env[Any, Any]) -> Names:
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return [*names, type(env).__name__]


def parse_names(text: str) -> Names | None:
    """Read gymnasium's ``str(env)``.

    :param text: such as ``<Monitor<TimeLimit<CarRacing<CarRacing-v3>>>>`` or ``<Monitor<MyEnv instance>>``
    :return: ``["Monitor", "TimeLimit", "CarRacing"]``; None where a class writes itself in another way
    """
    match = re.fullmatch(r"((?:<\w+(?=<))*)<(?:(\w+) instance|[\w:./-]+)>+", text)
    if match is None or text.count("<") != text.count(">"):
        return None
    names = match[1].split("<")[1:] + ([match[2]] if match[2] else [])
    is_wrapper = not names or names[-1] in COUNTERS or names[-1] in _WITHOUT_STATE
    return None if is_wrapper else names


def why_not_resumable(base: VecEnv, names: list[Names] | None) -> str | None:
    """Say why environments cannot go on in the midst of an episode.

    :param base: a VecEnv without its layers
    :param names: of its environments, as :func:`sub_env_names` returns them
    :return: the reason, in one line; None where they can
    """
    if names is None:
        return f"{type(base).__name__} does not tell which wrappers stand around its environments"
    return next(_reasons(base, names), None)


def _reasons(base: VecEnv, names: list[Names]) -> Iterator[str]:
    for around in names:
        reason = _why_not(base, around)
        if reason is not None:
            yield reason


def _why_not(base: VecEnv, names: Names) -> str | None:
    counted = [name for name in names[:-1] if name in COUNTERS]
    attributes = [attribute for name in counted for attribute in COUNTERS[name]]
    for name in counted:
        if any(attributes.count(attribute) > 1 for attribute in COUNTERS[name]):
            return f"{name} counts what another wrapper around {names[-1]} counts too: only the outer can be reached"
    missing = [attribute for attribute in attributes if not has_attr(base, attribute)]
    if missing:
        return f"a wrapper around {names[-1]} has no {missing[0]}: its name is that of another class"
    if not (has_attr(base, "get_state") and has_attr(base, "set_state")):
        return f"{names[-1]} has no get_state()/set_state()"
    unknown = [name for name in names[:-1] if name not in COUNTERS and name not in _WITHOUT_STATE]
    return _why_not_through(unknown[0]) if unknown else None


def _why_not_through(wrapper: str) -> str | None:
    """:return: why what is in this outermost unknown wrapper is out of reach; None where it hands that over itself"""
    classes = [cls for cls in _subclasses(gym.Wrapper) if cls.__name__ == wrapper]
    if not classes:  # it is made in another process, which does not tell whose methods it has found
        return f"{wrapper} is a wrapper that this process does not know: import it here"
    if all(hasattr(cls, "get_state") and hasattr(cls, "set_state") for cls in classes):
        return None  # the outermost that has both answers for what is in it
    return f"{wrapper} may keep something of the episode that it cannot hand over: it has no get_state()/set_state()"


def _subclasses(cls: type) -> Iterator[type]:
    subclass: type
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def has_attr(base: VecEnv, name: str) -> bool:
    """:return: whether all environments have an attribute; asked first, as a process dies of what it has not"""
    try:
        return base.has_attr(name)
    except (EOFError, ConnectionError):  # a worker has died: this is no property of the VecEnv
        raise
    except Exception:  # a VecEnv of the user's may raise anything for what it does not offer
        return False
