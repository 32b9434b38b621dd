"""All that a training depends on as one state: model, replay, environments, callbacks, logger and random numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_visual_td3.common.types import GuardedModel
from sb3_visual_td3.training_state.callback_state import callbacks_state, set_callbacks_state
from sb3_visual_td3.training_state.env_state import (
    check_env,
    env_state,
    evaluation_state,
    not_restored,
    set_env_state,
    set_evaluation_state,
    why_not_exact,
)
from sb3_visual_td3.training_state.model_settings import check_settings, settings_of
from sb3_visual_td3.training_state.model_state import load_parameters, model_state, set_model_state
from sb3_visual_td3.training_state.plain_data import as_given, plain_part
from sb3_visual_td3.training_state.random_state import random_state, set_random_state
from sb3_visual_td3.training_state.replay_state import check_replay, end_segment, replay_state, set_replay_state


def logger_state(logger: Logger) -> dict[str, Any]:
    """Read the values that wait for the next dump: numbers and strings; figures, videos and the like are left out.

    :return: plain data
    """
    pending: Mapping[str, Any] = logger.name_to_value
    values = plain_part({name: value for name, value in pending.items() if not isinstance(value, list | tuple | dict)})
    return {
        "values": values,
        "counts": {name: count for name, count in logger.name_to_count.items() if name in values},
        "excluded": {name: list(formats) for name, formats in logger.name_to_excluded.items() if name in values},
    }


def set_logger_state(logger: Logger, state: Mapping[str, Any]) -> None:
    """Replace what waits for the next dump.

    :param state: as returned by :func:`logger_state`
    """
    given = as_given(state["values"])
    for name, value in given.items():
        if not isinstance(value, bool | int | float | str | np.generic | np.ndarray):
            raise ValueError(f"the logged value {name} is {value!r}: expected a number or text")
    if not all(type(count) is int for count in state["counts"].values()):
        raise ValueError(f"{state['counts']!r} does not say how often values were logged")
    excluded = {name: tuple(formats) for name, formats in state["excluded"].items()}
    replaced: list[tuple[dict[str, Any], Mapping[str, Any]]] = [
        (logger.name_to_value, given),
        (logger.name_to_count, state["counts"]),
        (logger.name_to_excluded, excluded),
    ]
    for target, values in replaced:  # in place: they are defaultdicts
        target.clear()
        target.update(values)


def checked(model: BaseAlgorithm) -> OffPolicyAlgorithm:
    """Make sure, before training, that it can be put aside.

    :param model: the model to train, with its environment
    :return: the same model
    :raises ValueError: if it is no off-policy algorithm, a setting is a function, or the replay buffer is of a kind
        that cannot be put aside
    """
    if not isinstance(model, OffPolicyAlgorithm):
        raise ValueError(
            f"{type(model).__name__} cannot be put aside: expected an off-policy algorithm, such as VisualTD3 or SAC"
        )
    check_replay(model.replay_buffer)
    settings_of(model)
    return model


def check_is_alike(model: OffPolicyAlgorithm, state: Mapping[str, Any]) -> None:
    """Refuse to go on with what was made in another way.

    :param model: the model that is to go on, with its environment
    :param state: of :func:`training_state`
    :raises ValueError: if environment or settings differ; all that differs is named
    """
    assert model.env is not None
    check_env(model.env, state["env"])
    check_settings(state["settings"], model)


def training_state(model: OffPolicyAlgorithm, root: BaseCallback, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read all that the rest of a training depends on, but for weights and optimizers, which ``model.save()`` writes.

    :param model: at the start of a rollout
    :param root: the callback of ``learn()``
    :param settings: of ``settings_of(model)`` when training began: noise and the like change while they are used
    :return: plain data; the replay buffer's arrays are views, to be written away before anything goes on
    """
    assert model.env is not None
    assert model.replay_buffer is not None
    of_model = model_state(model)  # first: it may have something left for logger and replay buffer
    return {
        "settings": settings,
        "model": of_model,
        "replay": replay_state(model.replay_buffer),
        "env": env_state(model.env),
        "logger": logger_state(model.logger),
        "callbacks": callbacks_state(root, evaluation_state),
        "random": random_state(),
        "n_threads": th.get_num_threads(),
    }


def set_training_state(
    model: OffPolicyAlgorithm, root: BaseCallback, state: Mapping[str, Any], model_path: Path
) -> list[str]:
    """Go on from where :func:`training_state` was called.

    :param model: made alike, training being under way but for its first step
    :param root: the callback of ``learn()``
    :param state: as returned there
    :param model_path: what ``model.save()`` wrote at the same time
    :return: what is to be told: where the run is not the one that was interrupted
    :raises ValueError: if it is the state of something else
    :raises MemoryError: if the replay buffer does not fit into memory
    """
    assert model.env is not None
    assert model.replay_buffer is not None
    load_parameters(model, model_path)
    set_replay_state(model.replay_buffer, state["replay"])
    told = []
    first_observation = set_env_state(model.env, state["env"])
    if first_observation is not None:
        reason = state["env"]["why_not_exact"] or why_not_exact(model.env)
        told.append(f"{reason}: a new episode begins, so this is not bit for bit the run that was interrupted")
        end_segment(model.replay_buffer)
    told += [f"{name} has no get_state() and set_state(): it starts anew" for name in not_restored(model.env)]
    set_model_state(model, state["model"], first_observation)
    set_logger_state(model.logger, state["logger"])
    told += set_callbacks_state(root, state["callbacks"], set_evaluation_state)
    if type(state["n_threads"]) is not int:
        raise ValueError(f"n_threads is {state['n_threads']!r}: expected a number")
    if state["n_threads"] != th.get_num_threads():
        told.append(
            f"torch used {state['n_threads']} threads and uses {th.get_num_threads()} now, which rounds differently: "
            f"th.set_num_threads({state['n_threads']}), or --num-threads, makes it the same run bit for bit"
        )
    set_random_state(state["random"])
    return told


def go_back(model: OffPolicyAlgorithm, state: Mapping[str, Any], model_path: Path) -> None:
    """Return to what had been learnt when :func:`training_state` was called, and to nothing else of that time.

    Networks, target networks and optimizers are those of then. Counters, the replay buffer, environments, random
    states, callbacks and the log go on: training does not go back in time.

    :param model: between two rollouts
    :param state: as returned there, of this training
    :param model_path: what ``model.save()`` wrote at the same time
    :raises ValueError: if it is the state of something else
    """
    load_parameters(model, model_path)
    extras = state["model"]["extras"]
    if isinstance(model, GuardedModel) and extras is not None:
        model.roll_back(as_given(extras))
