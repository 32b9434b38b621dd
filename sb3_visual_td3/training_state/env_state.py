"""Read and restore the state of environments: the VecEnv, its wrappers, each sub-environment and its wrappers.

A sub-environment is restored within an episode if it has ``get_state()`` and ``set_state()``, and the state of each
gymnasium wrapper around it is known (see :data:`COUNTERS`). Otherwise a resumed run begins new episodes.

Sub-environments may run in worker processes, so all access uses the VecEnv's ``get_attr``, ``env_method`` and
``has_attr``.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.training_state.plain_data import as_given, as_plain
from sb3_visual_td3.training_state.random_state import (
    generator_state,
    restored_generator,
    set_space_random_state,
    space_random_state,
)
from sb3_visual_td3.training_state.vec_layer_state import (
    class_has_state,
    describe_layer,
    layer_state,
    layers_of,
    set_layer_state,
)

Names = list[str]
"""Class names of the wrappers around one environment, outermost first, and of the environment itself."""

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
    "IdleLimit": ("idle_steps",),  # sb3_visual_td3.envs.idle_limit
    "TimeAwareObservation": ("timesteps",),
    "StickyAction": ("last_action", "is_sticky_actions", "num_repeats", "repeats_taken"),
    "TimeFeatureWrapper": ("_current_step",),
    "TruncatedOnSuccessWrapper": ("current_successes",),
    "ActionSmoothingWrapper": ("smoothed_action",),
    "DelayedRewardWrapper": ("current_step", "accumulated_reward"),
    "HistoryWrapper": ("obs_history", "action_history"),
    "HistoryWrapperObsDict": ("obs_history", "action_history"),
}
"""Attributes that hold the state of wrappers of gymnasium, Stable-Baselines3, rl-zoo and this package, by class
name."""

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
    """Return the class names of the wrappers around each environment.

    :param base: the innermost VecEnv
    :return: class names for each environment; None if the VecEnv or a class's ``__str__`` hides them
    """
    if isinstance(base, DummyVecEnv):
        return [_names_around(env) for env in base.envs]
    try:
        names = [parse_names(text) for text in base.env_method("__str__")]
    except (EOFError, ConnectionError):
        # A dead worker is an error of its own and must be reported.
        raise
    except Exception:
        # A user's VecEnv may raise any exception for a method that it does not have.
        return None
    known = [each for each in names if each is not None]
    # If the wrappers of one environment are unknown, the whole VecEnv cannot be restored.
    return known if len(known) == len(names) else None


def _names_around(env: gym.Env[Any, Any]) -> Names:
    names = []
    while isinstance(env, gym.Wrapper):
        names.append(type(env).__name__)
        env = env.env
    return [*names, type(env).__name__]


def parse_names(text: str) -> Names | None:
    """Parse gymnasium's ``str(env)``, which shows the wrappers even in a worker process.

    :param text: a text such as ``<Monitor<TimeLimit<CarRacing<CarRacing-v3>>>>`` or ``<Monitor<MyEnv instance>>``
    :return: ``["Monitor", "TimeLimit", "CarRacing"]``; None if a class has a ``__str__`` of its own
    """
    # The environment is the class with an id in it ("CarRacing<CarRacing-v3>"), or the one called "instance".
    match = re.fullmatch(r"((?:<\w+(?=<))*)<(?:(\w+) instance|[\w:./-]+)>+", text)
    if match is None or text.count("<") != text.count(">"):
        return None
    names = match[1].split("<")[1:]
    if match[2]:
        names.append(match[2])
    # If the last name is a wrapper, the environment inside it was not recognised.
    is_wrapper = not names or names[-1] in COUNTERS or names[-1] in _WITHOUT_STATE
    return None if is_wrapper else names


def why_not_resumable(base: VecEnv, names: list[Names] | None) -> str | None:
    """Return why environments cannot continue in the middle of an episode; None if they can.

    :param base: the innermost VecEnv
    :param names: class names from :func:`sub_env_names`
    """
    if names is None:
        return f"{type(base).__name__} does not show the wrappers around its environments"
    for around in names:
        reason = _why_not(base, around)
        if reason is not None:
            return reason
    return None


def _why_not(base: VecEnv, names: Names) -> str | None:
    counted = [name for name in names[:-1] if name in COUNTERS]
    attributes = [attribute for name in counted for attribute in COUNTERS[name]]
    for name in counted:
        # get_attr() reads the outermost wrapper that has the attribute, and cannot reach the others.
        if any(attributes.count(attribute) > 1 for attribute in COUNTERS[name]):
            return (
                f"two wrappers around {names[-1]} have the same counters as {name}, and only the counters of the outer "
                "wrapper can be read: remove one of the wrappers"
            )
    missing = [attribute for attribute in attributes if not has_attr(base, attribute)]
    if missing:
        # COUNTERS uses class names, so a user's wrapper with the name of a gymnasium wrapper is treated as one.
        return f"a wrapper around {names[-1]} has the name of a known class, but no attribute {missing[0]}"
    if not (has_attr(base, "get_state") and has_attr(base, "set_state")):
        return f"{names[-1]} has no get_state()/set_state()"
    unknown = [name for name in names[:-1] if name not in COUNTERS and name not in _WITHOUT_STATE]
    return _why_state_is_hidden(unknown[0]) if unknown else None


def _why_state_is_hidden(wrapper: str) -> str | None:
    """Return why an environment's state cannot be read through a wrapper that this module does not know.

    :return: the reason in one line; None if the wrapper's class has ``get_state()`` and ``set_state()``
    """
    classes = [cls for cls in _subclasses(gym.Wrapper) if cls.__name__ == wrapper]
    if not classes:
        # The wrapper was created in a worker process, and this process cannot see whether it defines get_state().
        return f"the wrapper {wrapper} is not imported in this process: import its class before the training"
    if all(class_has_state(cls) for cls in classes):
        # The outermost wrapper with both methods must return the state of everything inside it.
        return None
    return f"{wrapper} may hold state of the current episode, but has no get_state()/set_state()"


def _subclasses(cls: type) -> Iterator[type]:
    subclass: type
    for subclass in cls.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def has_attr(base: VecEnv, name: str) -> bool:
    """Return whether all environments have an attribute.

    An AttributeError ends a worker process, so call this before an attribute is read.

    :param base: the innermost VecEnv
    :param name: name of the attribute
    """
    try:
        return base.has_attr(name)
    except (EOFError, ConnectionError):
        # A dead worker is an error of its own and must be reported.
        raise
    except Exception:
        # A user's VecEnv may raise any exception for a method that it does not have.
        return False


_START_TIME = "t_start"


def sub_env_states(base: VecEnv, names: list[Names], owns_states: bool) -> list[dict[str, Any]]:
    """Read the state of each environment and of its wrappers.

    :param base: the innermost VecEnv
    :param names: result of :func:`sub_env_names`
    :param owns_states: whether to read the environments' own states by ``get_state()``; if False, their random
        generators are read instead
    :raises ValueError: if an environment's ``get_state()`` returns something that is not plain data
    """
    nothing: list[Any] = [None] * len(names)
    owned = base.env_method("get_state") if owns_states else nothing
    generators: Sequence[Any] = nothing
    if not owns_states and has_attr(base, "np_random"):
        generators = base.get_attr("np_random")
    # From a worker process, get_attr() returns only a copy of the space. So an environment in a worker that samples
    # from its own action space has to include the space's generator in its state.
    action_spaces: Sequence[Any] = nothing
    if isinstance(base, DummyVecEnv):
        action_spaces = base.get_attr("action_space")
    states = []
    counters = _counters(base, names)
    for index, around in enumerate(names):
        generator, space = generators[index], action_spaces[index]
        is_numpy = isinstance(generator, np.random.Generator)
        states.append(
            {
                "counters": {name: _read(base, index, name) for name in counters[index]},
                "own": as_plain(owned[index], f"the state of {around[-1]}"),
                "generator": generator_state(generator) if is_numpy else None,
                "action_space": None if space is None else space_random_state(space),
            }
        )
    return states


def set_sub_env_states(
    base: VecEnv, names: list[Names], states: Sequence[Mapping[str, Any]], to_be_reset: bool
) -> None:
    """Set the state of each environment and of its wrappers.

    :param base: the innermost VecEnv
    :param names: result of :func:`sub_env_names`; must equal the names with which the state was saved
    :param states: result of :func:`sub_env_states`
    :param to_be_reset: whether a reset follows, so that the environments' own states are not needed
    :raises ValueError: if a worker process dies while it restores the state
    """
    with _explaining_dead_workers():
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
                # With allow_early_resets=False, Monitor forbids a reset in the middle of an episode.
                _write(base, index, "needs_reset", True)
            if state["action_space"] is not None and isinstance(base, DummyVecEnv):
                set_space_random_state(base.get_attr("action_space", [index])[0], state["action_space"])


def _counters(base: VecEnv, names: list[Names]) -> list[list[str]]:
    """Return the names of the attributes that are saved for each environment, such as Monitor's ``total_steps``."""
    wanted: list[list[str]] = []
    for around in names:
        # The last name is the environment itself, which has no counters of a wrapper.
        wanted.append([attribute for name in around[:-1] for attribute in COUNTERS.get(name, ())])
    # has_attr() sends a message to every worker process, so it is called once for each attribute, not for each
    # environment.
    present = {attribute for attribute in {each for of_one in wanted for each in of_one} if has_attr(base, attribute)}
    return [[attribute for attribute in of_one if attribute in present] for of_one in wanted]


def _read(base: VecEnv, index: int, name: str) -> Any:
    value = base.get_attr(name, [index])[0]
    # Save the elapsed time instead of the start time: the time between interruption and resumption must not count.
    if name == _START_TIME:
        return time.time() - value
    # Monitor has one number for every past episode; an array keeps them out of the JSON.
    if isinstance(value, list):
        return {"list": np.array(value)}
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
def _explaining_dead_workers() -> Iterator[None]:
    try:
        yield
    except (EOFError, ConnectionError) as error:
        raise ValueError(
            "a worker process died while its environment restored its state: see the worker's traceback above"
        ) from error


def max_episode_steps(base: VecEnv, names: list[Names]) -> list[int | None]:
    """Return the time limit of each environment in steps; None for one without a limit.

    :param base: the innermost VecEnv
    :param names: class names from :func:`sub_env_names`
    """
    # The attributes are compared, not the classes, because rl-zoo has a TimeLimit of its own.
    has_limit = [any(COUNTERS.get(name) == COUNTERS["TimeLimit"] for name in around[:-1]) for around in names]
    return _attribute_of_each(base, "_max_episode_steps", has_limit)


def max_idle_steps(base: VecEnv, names: list[Names]) -> list[int | None] | None:
    """Return the limit of each environment's ``IdleLimit``; None if no environment has one.

    :param base: the innermost VecEnv
    :param names: class names from :func:`sub_env_names`
    """
    has_limit = ["IdleLimit" in around[:-1] for around in names]
    # Without an IdleLimit the result is None, not a list of None. Snapshots of earlier versions do not contain this
    # entry, and check_env() reads a missing entry as None.
    return _attribute_of_each(base, "max_idle_steps", has_limit) if any(has_limit) else None


def _attribute_of_each(base: VecEnv, attribute: str, has_it: Sequence[bool]) -> list[Any]:
    """Return an attribute of each environment; None for an environment that does not have it."""
    if not has_attr(base, attribute):
        return [None] * len(has_it)
    return [base.get_attr(attribute, [index])[0] if has else None for index, has in enumerate(has_it)]


_OF_EACH = ("wrappers", "max_episode_steps", "max_idle_steps")
"""Keys of :func:`_description` whose value is a list with one item per environment."""
_ADVICE = "create the environment with the settings of the snapshot"


def why_not_exact(env: VecEnv) -> str | None:
    """Return why an environment cannot continue in the middle of its episodes; None if it can.

    :param env: the training environment, with its VecEnv wrappers
    """
    base = env.unwrapped
    if class_has_state(type(base)):
        return None
    return why_not_resumable(base, sub_env_names(base))


def env_state(env: VecEnv) -> dict[str, Any]:
    """Read the state of an environment.

    :param env: the training environment, with its VecEnv wrappers
    :return: plain data; ``"why_not_exact"`` is the reason why the episodes cannot continue, or None
    """
    base = env.unwrapped
    names = sub_env_names(base)
    reason = why_not_exact(env)
    own, states = None, None
    try:
        if class_has_state(type(base)):
            own = as_plain(base.get_state(), type(base).__name__)  # type: ignore[attr-defined]
        elif names is not None:
            states = sub_env_states(base, names, owns_states=reason is None)
    except ValueError as error:
        # The environment's state is not plain data. So its episodes cannot be saved, but everything else is.
        reason = str(error)
        if names is not None:
            states = sub_env_states(base, names, owns_states=False)
    return {
        "description": _description(env, names),
        "why_not_exact": reason,
        "layers": [layer_state(layer) for layer in layers_of(env)],
        "own": own,
        "environments": states,
    }


def set_env_state(env: VecEnv, state: Mapping[str, Any]) -> VecEnvObs | None:
    """Restore an environment, in the middle of its episodes or with new ones.

    New episodes begin if the saved ones cannot continue. State that outlasts an episode, such as VecNormalize's
    statistics, is restored in any case.

    :param env: an environment with the same settings, which has been reset
    :param state: result of :func:`env_state`
    :return: None if the episodes continue. Otherwise the first observation of the new episodes, to replace the model's
        last observation
    :raises ValueError: if the environment has other settings. The environment is then not changed
    """
    check_env(env, state)
    base = env.unwrapped
    names = sub_env_names(base)
    # Two conditions are checked: the state holds the episodes, and this environment can restore them.
    is_exact = state["why_not_exact"] is None and why_not_exact(env) is None
    if is_exact and state["own"] is not None:
        base.set_state(as_given(state["own"]))  # type: ignore[attr-defined]
    elif names is not None and state["environments"] is not None:
        set_sub_env_states(base, names, state["environments"], to_be_reset=not is_exact)
    # The wrappers are restored before a reset, so that VecNormalize scales the first observation by the restored
    # statistics.
    for layer, each in zip(layers_of(env), state["layers"], strict=True):
        set_layer_state(layer, each)
    if is_exact:
        return None
    return env.reset()


def evaluation_state(env: VecEnv) -> dict[str, Any]:
    """Read the state of an evaluation environment between its episodes.

    :param env: the evaluation environment, with its VecEnv wrappers
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
    """Restore an evaluation environment, which has to be reset before it is used.

    :param env: an environment with the same settings
    :param state: result of :func:`evaluation_state`
    :raises ValueError: if the environment has other settings. The environment is then not changed
    """
    check_env(env, state)
    base = env.unwrapped
    names = sub_env_names(base)
    if names is not None and state["environments"] is not None:
        set_sub_env_states(base, names, state["environments"], to_be_reset=True)
    for layer, each in zip(layers_of(env), state["layers"], strict=True):
        set_layer_state(layer, each)
    # These are the seeds of the next reset. The first evaluation resets the environment, and SB3 then sets the seeds to
    # None.
    base._seeds = list(state["seeds"])


def _description(env: VecEnv, names: list[Names] | None) -> dict[str, Any]:
    base = env.unwrapped
    return {
        "observation_space": describe_space(env.observation_space),
        "action_space": describe_space(env.action_space),
        "number of environments": env.num_envs,
        "layers": [describe_layer(layer) for layer in layers_of(env)],
        "wrappers": names,
        "max_episode_steps": None if names is None else max_episode_steps(base, names),
        "max_idle_steps": None if names is None else max_idle_steps(base, names),
    }


def check_env(env: VecEnv, state: Mapping[str, Any]) -> None:
    """Refuse an environment with other settings than the saved one.

    :param env: the environment that is to be restored
    :param state: result of :func:`env_state`
    :raises ValueError: if the settings differ
    """
    there, here = state["description"], _description(env, sub_env_names(env.unwrapped))
    same_number = there.get("number of environments") == here["number of environments"]
    differences = []
    for name, value in here.items():
        kept = there.get(name)
        # If only the number of environments differs, the lists with one item per environment differ in length. Then
        # only the number is reported.
        is_alike = name in _OF_EACH and not same_number and _shown(kept) == _shown(value)
        if kept != value and not is_alike:
            differences.append(f"{name}: the snapshot has {_shown(kept)}, the environment here {_shown(value)}")
    if differences:
        raise ValueError(f"{'; '.join(differences)}: {_ADVICE}")


def _shown(value: Any) -> str:
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        # Usually all environments are the same, so one of them is shown.
        value = value[0]
    if isinstance(value, list):
        return " of ".join(map(str, value)) or "none"
    return str(value)


def describe_space(space: spaces.Space[Any]) -> str:
    """Return shape, dtype and bounds of a space, such as ``Box(4, 84, 84) uint8 from 0 to 255``.

    :param space: any space of gymnasium
    """
    if isinstance(space, spaces.Dict):
        return f"Dict({', '.join(f'{key}: {describe_space(each)}' for key, each in space.spaces.items())})"
    if isinstance(space, spaces.Tuple):
        return f"Tuple({', '.join(map(describe_space, space.spaces))})"
    if not isinstance(space, spaces.Box):
        return repr(space)
    low, high = space.low, space.high
    if low.size and (low == low.flat[0]).all() and (high == high.flat[0]).all():
        bounds = f"from {low.flat[0]} to {high.flat[0]}"
    else:
        # Bounds that differ by element do not fit into a message. Their digest shows whether they are equal.
        bounds = f"with bounds {hashlib.sha256(low.tobytes() + high.tobytes()).hexdigest()[:12]}"
    return f"Box{space.shape} {space.dtype} {bounds}"
