"""The state of the environments of a training, layer by layer, as plain data."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.training_state.plain_data import as_given, as_plain
from sb3_visual_td3.training_state.random_state import generator_state, restored_generator
from sb3_visual_td3.training_state.space_state import describe_space, set_space_random_state, space_random_state
from sb3_visual_td3.training_state.vec_layer_state import (
    describe_layer,
    layer_state,
    layers_not_restored,
    layers_of,
    set_layer_state,
)

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
    """Say why environments cannot go on within an episode.

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


_START_TIME = "t_start"


def sub_env_states(base: VecEnv, names: list[Names], owns_states: bool) -> list[dict[str, Any]]:
    """Read what each environment and its wrappers remember.

    :param base: a VecEnv without its layers
    :param names: of its environments
    :param owns_states: whether the environments hand over a state; without one their random generators are read, which
        outlive an episode
    :return: plain data for each environment
    :raises ValueError: if an environment hands over what is no plain data
    """
    owned = base.env_method("get_state") if owns_states else [None] * len(names)
    generators = [None] * len(names) if owns_states or not has_attr(base, "np_random") else base.get_attr("np_random")
    # Elsewhere the spaces are copies: an environment that samples from its own answers for it.
    spaces: Sequence[Any] = base.get_attr("action_space") if isinstance(base, DummyVecEnv) else [None] * len(names)
    states = []
    counters = _counters(base, names)
    for index, around in enumerate(names):
        generator, space = generators[index], spaces[index]
        is_ours = isinstance(generator, np.random.Generator)
        states.append(
            {
                "counters": {name: _read(base, index, name) for name in counters[index]},
                "own": as_plain(owned[index], f"the state of {around[-1]}"),
                "generator": generator_state(generator) if is_ours else None,
                "action_space": None if space is None else space_random_state(space),
            }
        )
    return states


def set_sub_env_states(
    base: VecEnv, names: list[Names], states: Sequence[Mapping[str, Any]], to_be_reset: bool
) -> None:
    """Go on from where :func:`sub_env_states` was called.

    :param base: a VecEnv without its layers
    :param names: of its environments, as they were
    :param states: as returned there
    :param to_be_reset: whether a reset comes next: then the environments' own states are left alone
    :raises ValueError: if an environment's process ends over it
    """
    with _processes_that_live():
        counters = _counters(base, names)
        for index, (around, state) in enumerate(zip(names, states, strict=True)):
            if not to_be_reset:
                base.env_method("set_state", as_given(state["own"]), indices=[index])
            elif state["generator"] is not None:
                generator = restored_generator(base.get_attr("np_random", [index])[0], state["generator"])
                _write(base, index, "np_random", generator)
            for name in counters[index]:
                _write(base, index, name, _decoded(name, state["counters"][name]))
            if to_be_reset and "Monitor" in around:
                _write(base, index, "needs_reset", True)  # it may forbid a reset within an episode
            if state["action_space"] is not None and isinstance(base, DummyVecEnv):
                set_space_random_state(base.get_attr("action_space", [index])[0], state["action_space"])


def _counters(base: VecEnv, names: list[Names]) -> list[list[str]]:
    """:return: for each environment the attributes in which its wrappers count"""
    known = {attribute for around in names for name in around[:-1] for attribute in COUNTERS.get(name, ())}
    present = {attribute for attribute in known if has_attr(base, attribute)}
    return [[a for name in around[:-1] for a in COUNTERS.get(name, ()) if a in present] for around in names]


def _read(base: VecEnv, index: int, name: str) -> Any:
    value = base.get_attr(name, [index])[0]
    if name == _START_TIME:
        return time.time() - value
    if isinstance(value, list):
        return {"list": np.array(value)}  # a number for every episode
    return as_plain(value, name)


def _decoded(name: str, state: Any) -> Any:
    if name == _START_TIME:
        return time.time() - state
    if isinstance(state, Mapping) and "list" in state:
        return np.asarray(state["list"]).tolist()
    return as_given(state)


def _write(base: VecEnv, index: int, name: str, value: Any) -> None:
    base.env_method("set_wrapper_attr", name, value, indices=[index])


@contextmanager
def _processes_that_live() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ValueError(
            "an environment's process ended when it was given its state: what it said about it stands above"
        ) from error


def max_episode_steps(base: VecEnv, names: list[Names]) -> list[int | None]:
    """:return: for each environment the limit of its outermost TimeLimit; None where it has none"""
    is_there = has_attr(base, "_max_episode_steps")
    limited = [is_there and any(COUNTERS.get(n) == COUNTERS["TimeLimit"] for n in around[:-1]) for around in names]
    return [base.get_attr("_max_episode_steps", [i])[0] if has_one else None for i, has_one in enumerate(limited)]


_OF_EACH = ("wrappers", "max_episode_steps")
"""What :func:`_description` says of each environment."""
_ADVICE = "make the environment as it was"


def why_not_exact(env: VecEnv) -> str | None:
    """Say why an environment cannot go on in the midst of its episodes.

    :param env: the training environment, with its layers
    :return: the reason, in one line, such as ``CarRacing has no get_state()/set_state()``; None where it can
    """
    base = env.unwrapped
    return None if _has_own_state(base) else why_not_resumable(base, sub_env_names(base))


def not_restored(env: VecEnv) -> list[str]:
    """:return: the classes of layers whose memory is lost in any case: they have no get_state() and set_state()"""
    return layers_not_restored(env)


def env_state(env: VecEnv) -> dict[str, Any]:
    """Read all that an environment remembers; what it cannot hand over is named in ``why_not_exact``.

    :param env: the training environment, with its layers
    :return: plain data
    """
    base = env.unwrapped
    names = sub_env_names(base)
    reason = why_not_exact(env)
    own, states = None, None
    try:
        if _has_own_state(base):
            own = as_plain(base.get_state(), type(base).__name__)  # type: ignore[attr-defined]
        elif names is not None:
            states = sub_env_states(base, names, owns_states=reason is None)
    except ValueError as error:  # what it hands over is no plain data
        reason = str(error)
        states = None if names is None else sub_env_states(base, names, owns_states=False)
    return {
        "description": _description(env, names),
        "why_not_exact": reason,
        "layers": [layer_state(layer) for layer in layers_of(env)],
        "own": own,
        "environments": states,
    }


def set_env_state(env: VecEnv, state: Mapping[str, Any]) -> VecEnvObs | None:
    """Go on from where :func:`env_state` was called: in the midst of the episodes, or with new ones.

    New episodes begin where the environment could not hand over its state, or cannot take it here. What outlives an
    episode, such as VecNormalize's statistics and Monitor's totals, is restored in both cases.

    :param env: an environment made alike, which has been reset
    :param state: as returned there
    :return: None in the midst of the episodes; else the first observation of the new ones, which the model must take
        instead of its last: what it had seen was normalised by the statistics of a fresh environment
    :raises ValueError: if the environment was made in another way; nothing has changed then
    """
    check_env(env, state)
    base = env.unwrapped
    names = sub_env_names(base)
    is_exact = state["why_not_exact"] is None and why_not_exact(env) is None
    if is_exact and state["own"] is not None:
        base.set_state(as_given(state["own"]))  # type: ignore[attr-defined]
    elif names is not None and state["environments"] is not None:
        set_sub_env_states(base, names, state["environments"], to_be_reset=not is_exact)
    for layer, each in zip(layers_of(env), state["layers"], strict=True):
        set_layer_state(layer, each)
    return None if is_exact else env.reset()


def evaluation_state(env: VecEnv) -> dict[str, Any]:
    """Read what an environment remembers between its episodes: one for evaluations, which begin with a reset.

    It may not have been reset yet.

    :param env: the environment, with its layers
    :return: plain data
    """
    base = env.unwrapped
    names = sub_env_names(base)
    return {
        "description": _description(env, names),
        "layers": [layer_state(layer) for layer in layers_of(env)],
        "environments": None if names is None else sub_env_states(base, names, owns_states=False),
        "seeds": list(base._seeds),
    }


def set_evaluation_state(env: VecEnv, state: Mapping[str, Any]) -> None:
    """Go on from where :func:`evaluation_state` was called; the environment is to be reset before it is used.

    :param env: an environment made alike
    :param state: as returned there
    :raises ValueError: if the environment was made in another way; nothing has changed then
    """
    check_env(env, state)
    base = env.unwrapped
    names = sub_env_names(base)
    if names is not None and state["environments"] is not None:
        set_sub_env_states(base, names, state["environments"], to_be_reset=True)
    for layer, each in zip(layers_of(env), state["layers"], strict=True):
        set_layer_state(layer, each)
    base._seeds = list(state["seeds"])  # of the next reset: none, if there has been one


def _has_own_state(base: VecEnv) -> bool:
    return hasattr(type(base), "get_state") and hasattr(type(base), "set_state")


def _description(env: VecEnv, names: list[Names] | None) -> dict[str, Any]:
    base = env.unwrapped
    return {
        "observation_space": describe_space(env.observation_space),
        "action_space": describe_space(env.action_space),
        "number of environments": env.num_envs,
        "layers": [describe_layer(layer) for layer in layers_of(env)],
        "wrappers": names,
        "max_episode_steps": None if names is None else max_episode_steps(base, names),
    }


def check_env(env: VecEnv, state: Mapping[str, Any]) -> None:
    """Refuse an environment that was made in another way.

    :param env: the environment that is to go on
    :param state: of :func:`env_state`
    :raises ValueError: if they differ; all differences are named
    """
    there, here = state["description"], _description(env, sub_env_names(env.unwrapped))
    same_number = there.get("number of environments") == here["number of environments"]
    differences = []
    for name, value in here.items():
        kept = there.get(name)
        # What is told of each environment is of another length where there are more or fewer of them: no difference.
        is_alike = name in _OF_EACH and not same_number and _shown(kept) == _shown(value)
        if kept != value and not is_alike:
            differences.append(f"{name}: the snapshot has {_shown(kept)}, the environment here {_shown(value)}")
    if differences:
        raise ValueError(f"{'; '.join(differences)}: {_ADVICE}")


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        value = value[0]  # of many environments made alike
    if isinstance(value, list):
        return " of ".join(map(str, value)) or "none"
    return str(value)
