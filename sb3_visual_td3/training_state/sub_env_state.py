"""What the environments of a VecEnv remember, in this process or in others."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_visual_td3.training_state.plain_data import as_given, as_plain
from sb3_visual_td3.training_state.random_state import generator_state, restored_generator
from sb3_visual_td3.training_state.space_state import set_space_random_state, space_random_state
from sb3_visual_td3.training_state.sub_env_layers import COUNTERS, Names, has_attr

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
                _write(base, index, "needs_reset", True)  # it may forbid a reset in the midst of an episode
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
