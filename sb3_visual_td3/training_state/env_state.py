"""The training environment: its layers, its environments, and their wrappers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.training_state.plain_data import as_given, as_plain
from sb3_visual_td3.training_state.space_state import describe_space
from sb3_visual_td3.training_state.sub_env_layers import Names, sub_env_names, why_not_resumable
from sb3_visual_td3.training_state.sub_env_state import max_episode_steps, set_sub_env_states, sub_env_states
from sb3_visual_td3.training_state.vec_layer_state import (
    describe_layer,
    layer_state,
    layers_not_restored,
    layers_of,
    set_layer_state,
)

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
