"""Read and set a model's counters, last observation and exploration noise as plain data, and load its weights.

At the start of a rollout, Stable-Baselines3 draws new gSDE noise *before* it calls the callbacks. A snapshot is taken
in such a callback, so a resumed process must not draw the noise again (see :func:`set_sde_state`).
"""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Mapping
from inspect import isroutine
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.common.errors import in_one_line
from sb3_visual_td3.common.moved_modules import present_class_path
from sb3_visual_td3.common.types import CompletesSavedWeights, HasState
from sb3_visual_td3.training_state.plain_data import (
    as_given,
    as_plain,
    class_path,
    is_number,
    observation_from,
    observation_state,
    plain_part,
    require_alike,
)
from sb3_visual_td3.training_state.random_state import (
    generator_state,
    restored_generator,
    set_space_random_state,
    space_random_state,
)


def action_noise_state(noise: ActionNoise | None) -> dict[str, Any] | None:
    """Read the state of an action noise: the result of its ``get_state``, or its numbers, arrays and generators.

    :param noise: action noise of the model; None if it has none
    """
    if noise is None:
        return None
    state: dict[str, Any] = {"class": class_path(type(noise))}
    if isinstance(noise, VectorizedActionNoise):
        return {**state, "noises": [action_noise_state(each) for each in noise.noises]}
    if isinstance(noise, HasState):
        return {**state, "own": as_plain(noise.get_state(), "action_noise")}
    # Any other noise of SB3 or of the user: its attributes are its state (OrnsteinUhlenbeck keeps its last noise).
    # Functions and other objects among them are left out, because plain data cannot hold them.
    generators = {n: generator_state(v) for n, v in vars(noise).items() if isinstance(v, np.random.Generator)}
    nested = {n: action_noise_state(v) for n, v in vars(noise).items() if isinstance(v, ActionNoise)}
    return {**state, "values": _plain_values(vars(noise)), "generators": generators, "nested": nested}


def _plain_values(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes that are plain data, in the form that :func:`_unmarked` converts back.

    :param attributes: the attributes by name
    """
    return plain_part({name: _marked(value) for name, value in attributes.items()})


def _marked(value: Any) -> Any:
    """Return a value in which each container states its type, because plain data has no tuples."""
    if type(value) is dict:
        return {"dict": {key: _marked(each) for key, each in value.items()}}
    if type(value) in {list, tuple}:
        return {type(value).__name__: [_marked(each) for each in value]}
    # A container of another class, such as a named tuple, is left out: its class is not plain data.
    return type(value) if isinstance(value, Mapping | list | tuple) else value


def _unmarked(state: Any) -> Any:
    """Return the value from the result of :func:`_marked`; a snapshot of version 0.3.0 holds no containers."""
    if not isinstance(state, Mapping):
        return state
    ((kind, content),) = state.items()
    if kind == "dict":
        return {key: _unmarked(each) for key, each in content.items()}
    items = [_unmarked(each) for each in content]
    return tuple(items) if kind == "tuple" else items


def noises_in_part(noise: ActionNoise | None) -> list[str]:
    """Return the class names of the action noises whose state a snapshot may not contain completely.

    :param noise: action noise of the model; None if it has none
    """
    if noise is None or isinstance(noise, HasState):
        return []
    held = list(vars(noise).values())
    if isinstance(noise, VectorizedActionNoise):
        held = list(noise.noises)
    unknown = [name for each in held if isinstance(each, ActionNoise) for name in noises_in_part(each)]
    # A function or a class, such as the dtype of SB3's noises, has no state.
    stateless = np.random.Generator | ActionNoise | type | np.dtype
    others = [each for each in held if not (isinstance(each, stateless) or isroutine(each))]
    if len(_plain_values({str(index): each for index, each in enumerate(others)})) < len(others):
        unknown.append(type(noise).__qualname__)
    return list(dict.fromkeys(unknown))


def set_action_noise_state(noise: ActionNoise | None, state: Mapping[str, Any] | None) -> None:
    """Set the state of an action noise.

    :param noise: action noise of the model, of the same classes as the saved one
    :param state: result of :func:`action_noise_state`
    :raises ValueError: if it is the state of a different noise
    """
    there = None if state is None else present_class_path(state["class"])
    here = None if noise is None else class_path(type(noise))
    if there != here:
        raise ValueError(
            f"action_noise: the snapshot has {there}, the model has {here}: create the model with the settings of the "
            "snapshot"
        )
    if noise is None or state is None:
        return
    if isinstance(noise, VectorizedActionNoise):
        if len(noise.noises) != len(state["noises"]):
            raise ValueError(
                f"action_noise: the snapshot has n_envs={len(state['noises'])}, the model has "
                f"n_envs={len(noise.noises)}: create the environment with the settings of the snapshot"
            )
        for each, each_state in zip(noise.noises, state["noises"], strict=True):
            set_action_noise_state(each, each_state)
    elif isinstance(noise, HasState) and "own" in state:
        noise.set_state(as_given(state["own"]))
    else:
        values = as_given(state["values"])
        nested = state.get("nested", {})  # missing in snapshots of version 0.3.0
        # A noise may create other attributes when it is first called, so the noise of a new model lacks them.
        unknown = nested.keys() - vars(noise).keys()
        if unknown:
            raise ValueError(
                f"action_noise: the snapshot has {', '.join(sorted(unknown))}, but {here} has no such attributes: "
                "create the model with the settings of the snapshot"
            )
        vars(noise).update({name: _unmarked(value) for name, value in values.items()})
        for name, nested_state in nested.items():
            set_action_noise_state(vars(noise)[name], nested_state)
        for name, generator in state["generators"].items():
            vars(noise)[name] = restored_generator(vars(noise).get(name), generator)


_MATRICES = ("exploration_mat", "exploration_matrices")


def sde_state(model: OffPolicyAlgorithm) -> dict[str, Any] | None:
    """Return the noise matrices of gSDE as plain data; None for a model without gSDE.

    :param model: a model at the start of a rollout, when SB3 has drawn the matrices
    """
    if not model.use_sde:
        return None
    distribution = model.actor.action_dist
    return {name: getattr(distribution, name).detach().cpu().numpy().copy() for name in _MATRICES}


def set_sde_state(model: OffPolicyAlgorithm, state: Mapping[str, Any] | None) -> None:
    """Make the next rollout begin with the saved noise matrices of gSDE instead of new ones.

    :param model: a model before its first rollout
    :param state: result of :func:`sde_state`
    """
    if state is None:
        return
    actor: Any = model.actor
    matrices = {name: th.from_numpy(np.array(state[name])).to(model.device) for name in _MATRICES}

    # SB3 calls actor.reset_noise() at the start of a rollout. The first call restores the matrices, and every later
    # call draws new ones.
    def restore_instead(batch_size: int = 1) -> None:  # noqa: ARG001
        del actor.reset_noise  # makes the method of the class visible again
        vars(actor.action_dist).update(matrices)

    actor.reset_noise = restore_instead


_VARIABLES = "pytorch_variables"
_SUFFIX = ".pth"


def load_parameters(model: OffPolicyAlgorithm, zip_path: str | os.PathLike[str]) -> None:
    """Load into a model the weights, optimizers and other tensors that ``model.save`` has written.

    The pickled ``data`` entry of the file could execute code, and is never opened.

    :param model: a model with the same settings
    :param zip_path: path of the zip file, with its suffix
    :raises ValueError: if the file is damaged or holds another architecture. The model is then not changed
    """
    saved = _read(zip_path)
    variables = saved.pop(_VARIABLES, None) or {}
    modules, names = model._get_torch_save_params()
    differences = [
        *_names_that_differ(saved, modules),
        *_names_that_differ(variables, names),
        *(line for name in modules if name in saved for line in _differences(model, name, saved[name])),
        *(line for name in names if name in variables for line in _difference_of_tensors(model, name, variables[name])),
    ]
    # All differences are found before anything is loaded, because SB3's set_parameters() could fail halfway.
    if differences:
        shown = "; ".join(differences[:5])
        if len(differences) > 5:
            shown += f"; and {len(differences) - 5} more"
        raise ValueError(
            f"{zip_path} does not fit the model: {shown}. To load this file, create the model with the settings of the "
            "snapshot"
        )
    model.set_parameters(saved, exact_match=True)
    with th.no_grad():
        for name in names:
            recursive_getattr(model, name).copy_(variables[name])


def _read(zip_path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of each ``.pth`` entry of a model's zip file, by the entry's name without its suffix."""
    read = {}
    try:
        with zipfile.ZipFile(zip_path) as archive:
            for name in archive.namelist():
                if name.endswith(_SUFFIX):
                    # All tensors are loaded on the CPU, because Adam's step counters stay there unless Adam is fused.
                    # The other tensors are copied to the model's device later.
                    content = io.BytesIO(archive.read(name))
                    read[name.removesuffix(_SUFFIX)] = th.load(content, map_location="cpu", weights_only=True)
    # zipfile raises NotImplementedError if a damaged header names an unknown compression method or version.
    except (zipfile.BadZipFile, zlib.error, UnpicklingError, RuntimeError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{zip_path} is damaged ({in_one_line(error)}): use another snapshot") from error
    # The .pth entries are zip files too. If a truncated file ends with one of them, zipfile opens that entry.
    if not read:
        raise ValueError(f"{zip_path} is damaged (it holds no weights): use another snapshot")
    return read


def _names_that_differ(saved: Mapping[str, Any], names: list[str]) -> list[str]:
    missing = [f"{name} is missing in the file" for name in names if name not in saved]
    return missing + [f"{name} is missing in the model" for name in saved if name not in names]


def _differences(model: OffPolicyAlgorithm, name: str, saved: Mapping[str, Any]) -> list[str]:
    target = recursive_getattr(model, name)
    if isinstance(target, th.optim.Optimizer):
        return _differences_of_optimizers(name, target, saved)
    if isinstance(target, CompletesSavedWeights):
        saved = target.completed_state(saved)
    here, there = _shapes(target.state_dict()), _shapes(saved)
    lines = []
    for key in dict.fromkeys([*here, *there]):
        if here.get(key) != there.get(key):
            in_file, in_model = there.get(key, "missing"), here.get(key, "missing")
            lines.append(f"{name}.{key} is {in_file} in the file, {in_model} in the model")
    return lines


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if isinstance(value, th.Tensor)}


def _differences_of_optimizers(name: str, optimizer: th.optim.Optimizer, saved: Mapping[str, Any]) -> list[str]:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    if len(indices) != len(weights):
        return [f"{name} has {len(indices)} weights in the file, {len(weights)} in the model"]
    lines = []
    for index, weight in zip(indices, weights, strict=True):
        for key, value in saved["state"].get(index, {}).items():
            # Adam's moments have the shape of their weight, and its step counter has no dimensions.
            if isinstance(value, th.Tensor) and value.ndim and value.shape != weight.shape:
                shape = tuple(value.shape)
                lines.append(f"{name}: {key} is {shape} in the file, {tuple(weight.shape)} in the model")
    return lines


def _difference_of_tensors(model: OffPolicyAlgorithm, name: str, saved: th.Tensor) -> list[str]:
    here = recursive_getattr(model, name)
    if here.shape == saved.shape:
        return []
    return [f"{name} is {tuple(saved.shape)} in the file, {tuple(here.shape)} in the model"]


_COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_n_calls",  # DQN and QR-DQN only
    "exploration_rate",  # DQN and QR-DQN only
)
_FRACTIONS = ("_current_progress_remaining", "exploration_rate")


def model_state(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """Read the state of a model, except for weights, optimizers and replay buffer.

    Call this before the logger and the replay buffer are read, because a model's ``get_state()`` may write to them.

    :param model: a model at the start of a rollout
    """
    extras = None
    if isinstance(model, HasState):
        extras = as_plain(model.get_state(), type(model).__name__)
    own = vars(model)
    # An environment that uses torch may report ``is_success`` as a tensor.
    successes = [each.tolist() if isinstance(each, th.Tensor) else each for each in model.ep_success_buffer or ()]
    return {
        "extras": extras,
        "counters": {name: as_plain(own[name], name) for name in _COUNTERS if name in own},
        "elapsed_ns": time.time_ns() - int(model.start_time),
        "ep_info_buffer": [plain_part(info) for info in model.ep_info_buffer or ()],
        "ep_success_buffer": as_plain(successes, "ep_success_buffer"),
        "last_obs": observation_state(model._last_obs),
        "last_original_obs": observation_state(model._last_original_obs),
        "last_episode_starts": as_plain(model._last_episode_starts, "_last_episode_starts"),
        "action_noise": action_noise_state(model.action_noise),
        "action_space": space_random_state(model.action_space),
        "sde": sde_state(model),
        # A user may freeze weights after the model is created. Neither model.zip nor a new policy holds this
        # information.
        "frozen": [name for name, weight in model.policy.named_parameters() if not weight.requires_grad],
    }


def set_model_state(
    model: OffPolicyAlgorithm, state: Mapping[str, Any], first_observation: VecEnvObs | None = None
) -> None:
    """Restore a model, except for weights, optimizers and replay buffer.

    :param model: a model with the same settings, after ``_setup_learn`` and before its first rollout
    :param state: result of :func:`model_state`
    :param first_observation: first observation of new episodes; None if the episodes continue
    :raises ValueError: if it is the state of another model
    """
    counters = {name: _counter(name, value) for name, value in as_given(state["counters"]).items()}
    infos, successes = as_given(state["ep_info_buffer"]), as_given(state["ep_success_buffer"])
    for info in infos:
        if not {"r", "l"} <= info.keys() or not all(is_number(info[key]) for key in ("r", "l")):
            raise ValueError(f"ep_info_buffer holds {info!r}: expected an episode of Monitor, with numbers r and l")
    if first_observation is None:
        require_alike(observation_state(model._last_obs), state["last_obs"], "the last observation")
        require_alike(model._last_episode_starts, state["last_episode_starts"], "the starts of episodes")
    # All checks are done; from here on the model changes.
    set_action_noise_state(model.action_noise, state["action_noise"])
    vars(model).update({name: value for name, value in counters.items() if name in vars(model)})
    # SB3 computes frames per second from this time. The time between interruption and resumption must not count.
    model.start_time = time.time_ns() - int(state["elapsed_ns"])
    model.ep_info_buffer = deque(infos, maxlen=model._stats_window_size)
    model.ep_success_buffer = deque(successes, maxlen=model._stats_window_size)
    if first_observation is None:
        model._last_obs = observation_from(state["last_obs"])
        model._last_original_obs = observation_from(state["last_original_obs"])
        model._last_episode_starts = as_given(state["last_episode_starts"])
    else:
        _begin_with(model, first_observation)
    set_space_random_state(model.action_space, state["action_space"])
    set_sde_state(model, state["sde"])
    # Snapshots of earlier versions have no "frozen".
    if "frozen" in state:
        for name, weight in model.policy.named_parameters():
            weight.requires_grad_(name not in state["frozen"])
    if isinstance(model, HasState) and state["extras"] is not None:
        model.set_state(as_given(state["extras"]))


def _counter(name: str, value: Any) -> Any:
    """Check a counter of a model's saved state, and return it."""
    # The remaining progress falls below 0 if the last rollout is longer than the rest of the training.
    is_too_small = is_number(value) and value < 0 and name != "_current_progress_remaining"
    if name not in _COUNTERS or not is_number(value) or is_too_small:
        raise ValueError(f"the counter {name} is {value!r}: expected a number >= 0. Resume from another snapshot")
    if name not in _FRACTIONS and not float(value).is_integer():
        raise ValueError(f"the counter {name} is {value!r}: expected an integer. Resume from another snapshot")
    return value


def _begin_with(model: OffPolicyAlgorithm, observation: VecEnvObs) -> None:
    """Store the first observation of new episodes in a model, as Stable-Baselines3's ``_setup_learn`` does."""
    model._last_obs = observation  # type: ignore[assignment]
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    if model.action_noise is not None:
        model.action_noise.reset()
