"""Read and restore a whole training run: model, replay buffer, environments, callbacks, logger and random numbers.

:class:`~sb3_visual_td3.callbacks.snapshot.SnapshotCallback` uses this module. If ExplosionAlertCallback rolls training
back, :func:`go_back` restores only what the model has learned.
"""

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

from sb3_visual_td3.common.segments import end_segments
from sb3_visual_td3.common.types import GuardedModel
from sb3_visual_td3.training_state.callback_state import callbacks_state, set_callbacks_state
from sb3_visual_td3.training_state.env_state import (
    check_env,
    env_state,
    evaluation_state,
    set_env_state,
    set_evaluation_state,
    why_not_exact,
)
from sb3_visual_td3.training_state.model_settings import check_settings, described_arguments
from sb3_visual_td3.training_state.model_state import load_parameters, model_state, set_model_state
from sb3_visual_td3.training_state.plain_data import as_given, plain_part
from sb3_visual_td3.training_state.random_state import random_state, set_random_state
from sb3_visual_td3.training_state.replay_state import check_replay, replay_state, set_replay_state
from sb3_visual_td3.training_state.vec_layer_state import layers_not_restored


def logger_state(logger: Logger) -> dict[str, Any]:
    """Read the values that the logger has recorded but not yet dumped; figures and videos are left out.

    :param logger: logger of the model
    """
    pending: Mapping[str, Any] = logger.name_to_value
    values = plain_part({name: value for name, value in pending.items() if not isinstance(value, list | tuple | dict)})
    return {
        "values": values,
        "counts": {name: count for name, count in logger.name_to_count.items() if name in values},
        "excluded": {name: list(formats) for name, formats in logger.name_to_excluded.items() if name in values},
    }


def set_logger_state(logger: Logger, state: Mapping[str, Any]) -> None:
    """Set the values that the logger has recorded but not yet dumped.

    :param logger: logger of the model
    :param state: result of :func:`logger_state`
    :raises ValueError: if a value is neither a number nor text, or a count is not an integer
    """
    given = as_given(state["values"])
    for name, value in given.items():
        if not isinstance(value, bool | int | float | str | np.generic | np.ndarray):
            raise ValueError(
                f"the snapshot has {name}={value!r} as a logged value: expected a number or text. Resume from another "
                "snapshot"
            )
    if not all(type(count) is int for count in state["counts"].values()):
        raise ValueError(
            f"the snapshot's counts of logged values are {state['counts']!r}: expected integers. Resume from another "
            "snapshot"
        )
    excluded = {name: tuple(formats) for name, formats in state["excluded"].items()}
    replaced: list[tuple[dict[str, Any], Mapping[str, Any]]] = [
        (logger.name_to_value, given),
        (logger.name_to_count, state["counts"]),
        (logger.name_to_excluded, excluded),
    ]
    # The dicts are changed in place, because they are defaultdicts.
    for target, values in replaced:
        target.clear()
        target.update(values)


def require_snapshot_support(model: BaseAlgorithm) -> OffPolicyAlgorithm:
    """Refuse a model that cannot be saved in a snapshot.

    :param model: the model to train, with its environment
    :return: ``model`` itself
    :raises ValueError: if the model is not off-policy, a setting is a function, or the replay buffer cannot be saved
    """
    if not isinstance(model, OffPolicyAlgorithm):
        raise ValueError(
            f"{type(model).__name__} cannot be saved by SnapshotCallback: expected an off-policy algorithm, such as "
            "VisualTD3 or SAC"
        )
    check_replay(model.replay_buffer)
    described_arguments(model)
    return model


def require_same_training(model: OffPolicyAlgorithm, state: Mapping[str, Any]) -> None:
    """Refuse to restore a training run into a model or environment whose settings differ from the saved ones.

    :param model: the model, with its environment
    :param state: result of :func:`training_state`
    :raises ValueError: if environment or settings differ
    """
    assert model.env is not None
    check_env(model.env, state["env"])
    check_settings(state["settings"], model)


def training_state(model: OffPolicyAlgorithm, root: BaseCallback, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Read everything that a resumed run needs, except weights and optimizers (see ``model.save()``).

    :param model: a model at the start of a rollout
    :param root: the callback of ``learn()``
    :param settings: result of ``described_arguments(model)`` from before the first step
    :return: plain data. It holds views of the replay buffer, so write it to disk before training continues
    """
    assert model.env is not None
    assert model.replay_buffer is not None
    # The model is read first, because it may still write to the logger and the replay buffer.
    of_model = model_state(model)
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
    """Restore a whole training run.

    :param model: a model with the same settings, inside ``learn()`` and before its first step
    :param root: the callback of ``learn()``
    :param state: result of :func:`training_state`
    :param model_path: file of ``model.save()``, from the same step as ``state``
    :return: messages for the user about everything that is not restored exactly
    :raises ValueError: if ``state`` belongs to another training run
    :raises MemoryError: if the replay buffer does not fit into memory
    """
    assert model.env is not None
    assert model.replay_buffer is not None
    # The weights come first: they are checked against the architecture before anything is changed.
    load_parameters(model, model_path)
    set_replay_state(model.replay_buffer, state["replay"])
    messages = []
    # The environment comes before the model, which needs the first observation if new episodes begin.
    first_observation = set_env_state(model.env, state["env"])
    if first_observation is not None:
        reason = state["env"]["why_not_exact"] or why_not_exact(model.env)
        messages.append(f"{reason}: a new episode begins, so this is not bit for bit the run that was interrupted")
        end_segments(model.replay_buffer)
    messages += [
        f"{name} has no get_state() and set_state(): it starts from the beginning"
        for name in layers_not_restored(model.env)
    ]
    set_model_state(model, state["model"], first_observation)
    set_logger_state(model.logger, state["logger"])
    messages += set_callbacks_state(root, state["callbacks"], set_evaluation_state)
    if type(state["n_threads"]) is not int:
        raise ValueError(
            f"the snapshot has n_threads={state['n_threads']!r}: expected an integer. Resume from another snapshot"
        )
    if state["n_threads"] != th.get_num_threads():
        n_then, n_now = state["n_threads"], th.get_num_threads()
        messages.append(
            f"torch used {n_then} threads and uses {n_now} now, so it rounds differently: to continue the run bit for "
            f"bit, call th.set_num_threads({n_then}), or add --num-threads {n_then} to 'visual-td3 resume'"
        )
    # The generators come last, because everything above may draw numbers.
    set_random_state(state["random"])
    return messages


def go_back(model: OffPolicyAlgorithm, state: Mapping[str, Any], model_path: Path) -> None:
    """Restore the networks and the optimizers from an earlier point of the training.

    A GuardedModel, such as VisualTD3, also gets back what it has learned outside its weights, for example the scale of
    the rewards. The counters, the replay buffer and everything else stay unchanged.

    :param model: a model between two rollouts
    :param state: earlier result of :func:`training_state`
    :param model_path: file of ``model.save()``, from the same step as ``state``
    :raises ValueError: if the file is damaged or holds another architecture
    """
    load_parameters(model, model_path)
    extras = state["model"]["extras"]
    if isinstance(model, GuardedModel) and extras is not None:
        model.roll_back(as_given(extras))
