"""The state of a model as plain data: parameters, optimizers, counters, exploration noise and gSDE.

Stable-Baselines3 draws new ones at the start of a rollout *before* it tells the callbacks: a snapshot taken there has
them drawn already, and a process that goes on from it must not draw them a second time.
"""

from __future__ import annotations

import io
import os
import time
import zipfile
import zlib
from collections import deque
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise, VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import recursive_getattr
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs

from sb3_visual_td3.common.moved_modules import present_class_path
from sb3_visual_td3.common.types import HasState
from sb3_visual_td3.training_state.plain_data import (
    as_given,
    as_plain,
    class_path,
    is_number,
    plain_part,
    require_alike,
)
from sb3_visual_td3.training_state.random_state import generator_state, restored_generator
from sb3_visual_td3.training_state.space_state import (
    observation_from,
    observation_state,
    set_space_random_state,
    space_random_state,
)


def action_noise_state(noise: ActionNoise | None) -> dict[str, Any] | None:
    """Read what a noise remembers: by its own ``get_state``, or else its numbers, arrays and generators.

    :param noise: the model's; None where it has none
    :return: plain data
    """
    if noise is None:
        return None
    state: dict[str, Any] = {"class": class_path(type(noise))}
    if isinstance(noise, VectorizedActionNoise):
        return {**state, "noises": [action_noise_state(each) for each in noise.noises]}
    if _has_state(noise):
        return {**state, "own": as_plain(noise.get_state(), "action_noise")}  # type: ignore[attr-defined]
    kinds = bool | int | float | np.generic | np.ndarray
    values = {name: as_plain(value, name) for name, value in vars(noise).items() if isinstance(value, kinds)}
    generators = {n: generator_state(v) for n, v in vars(noise).items() if isinstance(v, np.random.Generator)}
    return {**state, "values": values, "generators": generators}


def set_action_noise_state(noise: ActionNoise | None, state: Mapping[str, Any] | None) -> None:
    """Go on from where :func:`action_noise_state` was called.

    :param noise: of the same class
    :param state: as returned there
    :raises ValueError: if it is the state of another noise
    """
    there, here = _name_in(state), None if noise is None else class_path(type(noise))
    if there != here:
        raise ValueError(f"action_noise: the snapshot has {there}, the model here {here}: make the model as it was")
    if noise is None or state is None:
        return
    if isinstance(noise, VectorizedActionNoise):
        if len(noise.noises) != len(state["noises"]):
            raise ValueError(
                f"action_noise: the snapshot has it for {len(state['noises'])} environments, here are "
                f"{len(noise.noises)}: make the environment as it was"
            )
        for each, each_state in zip(noise.noises, state["noises"], strict=True):
            set_action_noise_state(each, each_state)
    elif "own" in state:
        noise.set_state(as_given(state["own"]))  # type: ignore[attr-defined]
    else:
        values = as_given(state["values"])
        unknown = (values.keys() | state["generators"].keys()) - vars(noise).keys()
        if unknown:
            raise ValueError(f"action_noise: {here} has no {', '.join(sorted(unknown))}")
        vars(noise).update(values)
        for name, generator in state["generators"].items():
            vars(noise)[name] = restored_generator(vars(noise).get(name), generator)


def _name_in(state: Mapping[str, Any] | None) -> str | None:
    return None if state is None else present_class_path(state["class"])


def _has_state(noise: ActionNoise) -> bool:
    return hasattr(noise, "get_state") and hasattr(noise, "set_state")


_MATRICES = ("exploration_mat", "exploration_matrices")


def sde_state(model: OffPolicyAlgorithm) -> dict[str, Any] | None:
    """:return: the noise matrices as plain data; None for a model without gSDE"""
    if not model.use_sde:
        return None
    distribution = model.actor.action_dist
    return {name: getattr(distribution, name).detach().cpu().numpy().copy() for name in _MATRICES}


def set_sde_state(model: OffPolicyAlgorithm, state: Mapping[str, Any] | None) -> None:
    """Have the rollout that comes next begin with these matrices, and draw nothing for it.

    :param model: before its first rollout
    :param state: as returned by :func:`sde_state`
    """
    if state is None:
        return
    actor: Any = model.actor
    matrices = {name: th.from_numpy(np.array(state[name])).to(model.device) for name in _MATRICES}

    def restore_instead(batch_size: int = 1) -> None:  # noqa: ARG001
        del actor.reset_noise  # the class's own method is back
        vars(actor.action_dist).update(matrices)

    actor.reset_noise = restore_instead


_VARIABLES = "pytorch_variables"
_SUFFIX = ".pth"


def load_parameters(model: OffPolicyAlgorithm, zip_path: str | os.PathLike[str]) -> None:
    """Give a model the weights, optimizers and other tensors that ``model.save`` wrote, in place.

    Only the ``.pth`` entries are read, as weights; the pickled ``data`` entry is never opened.

    :param model: made with the same settings
    :param zip_path: the zip file, with its suffix
    :raises ValueError: if the file is damaged, or of another architecture: then nothing has changed
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
    if differences:
        shown = "; ".join(differences[:5]) + (f"; and {len(differences) - 5} more" if len(differences) > 5 else "")
        raise ValueError(f"{zip_path} holds another architecture: {shown}: make the model as it was")
    model.set_parameters(saved, exact_match=True)
    with th.no_grad():
        for name in names:
            recursive_getattr(model, name).copy_(variables[name])


def _read(zip_path: str | os.PathLike[str]) -> dict[str, Any]:
    """:return: what each ``.pth`` entry holds, by its name without the suffix"""
    read = {}
    try:
        with zipfile.ZipFile(zip_path) as archive:
            for name in archive.namelist():
                if name.endswith(_SUFFIX):
                    # On the CPU: an optimizer counts its steps there, and the rest goes where its weights are.
                    content = io.BytesIO(archive.read(name))
                    read[name.removesuffix(_SUFFIX)] = th.load(content, map_location="cpu", weights_only=True)
    # NotImplementedError: where the damage is in a header, zipfile reads of a compression or a version that it lacks.
    except (zipfile.BadZipFile, zlib.error, UnpicklingError, RuntimeError, EOFError, NotImplementedError) as error:
        raise ValueError(f"{zip_path} is damaged ({' '.join(str(error).split())}): go on from another one") from error
    if not read:  # a zip that is cut short ends in one of those in it, and reads as that one
        raise ValueError(f"{zip_path} is damaged (it holds no weights): go on from another one")
    return read


def _names_that_differ(saved: Mapping[str, Any], names: list[str]) -> list[str]:
    missing = [f"{name} is missing" for name in names if name not in saved]
    return missing + [f"{name} is unknown here" for name in saved if name not in names]


def _differences(model: OffPolicyAlgorithm, name: str, saved: Mapping[str, Any]) -> list[str]:
    target = recursive_getattr(model, name)
    if isinstance(target, th.optim.Optimizer):
        return _differences_of_optimizers(name, target, saved)
    here, there = _shapes(target.state_dict()), _shapes(saved)
    keys = list(dict.fromkeys([*here, *there]))
    return [
        f"{name}.{key} is {there.get(key, 'missing')} there, {here.get(key, 'missing')} here"
        for key in keys
        if here.get(key) != there.get(key)
    ]


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items() if isinstance(value, th.Tensor)}


def _differences_of_optimizers(name: str, optimizer: th.optim.Optimizer, saved: Mapping[str, Any]) -> list[str]:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    indices = [index for group in saved["param_groups"] for index in group["params"]]
    if len(indices) != len(weights):
        return [f"{name} is for {len(indices)} weights there, {len(weights)} here"]
    lines = []
    for index, weight in zip(indices, weights, strict=True):
        for key, value in saved["state"].get(index, {}).items():
            if isinstance(value, th.Tensor) and value.ndim and value.shape != weight.shape:
                lines.append(f"{name}: {key} is {tuple(value.shape)} there, {tuple(weight.shape)} here")
    return lines


def _difference_of_tensors(model: OffPolicyAlgorithm, name: str, saved: th.Tensor) -> list[str]:
    here = recursive_getattr(model, name)
    if here.shape == saved.shape:
        return []
    return [f"{name} is {tuple(saved.shape)} there, {tuple(here.shape)} here"]


_COUNTERS = (
    "num_timesteps",
    "_total_timesteps",
    "_num_timesteps_at_start",
    "_n_updates",
    "_episode_num",
    "_current_progress_remaining",
    "_n_calls",  # DQN and QR-DQN, as the next
    "exploration_rate",
)
_FRACTIONS = ("_current_progress_remaining", "exploration_rate")


def model_state(model: OffPolicyAlgorithm) -> dict[str, Any]:
    """Read what a model remembers beyond its weights, optimizers and replay buffer.

    To be called before the logger and the replay buffer are read: a model may have something left to write there.

    :param model: at the start of a rollout
    :return: plain data
    """
    extras = as_plain(model.get_state(), type(model).__name__) if isinstance(model, HasState) else None
    own = vars(model)
    return {
        "extras": extras,
        "counters": {name: as_plain(own[name], name) for name in _COUNTERS if name in own},
        "elapsed_ns": time.time_ns() - int(model.start_time),
        "ep_info_buffer": [plain_part(info) for info in model.ep_info_buffer or ()],
        "ep_success_buffer": as_plain(list(model.ep_success_buffer or ()), "ep_success_buffer"),
        "last_obs": observation_state(model._last_obs),
        "last_original_obs": observation_state(model._last_original_obs),
        "last_episode_starts": as_plain(model._last_episode_starts, "_last_episode_starts"),
        "action_noise": action_noise_state(model.action_noise),
        "action_space": space_random_state(model.action_space),
        "sde": sde_state(model),
        # Neither Stable-Baselines3's file nor a rebuilt policy knows what was frozen in the meantime.
        "frozen": [name for name, weight in model.policy.named_parameters() if not weight.requires_grad],
    }


def set_model_state(
    model: OffPolicyAlgorithm, state: Mapping[str, Any], first_observation: VecEnvObs | None = None
) -> None:
    """Go on from where :func:`model_state` was called.

    :param model: made with the same settings, after ``_setup_learn`` and before its first rollout
    :param state: as returned there
    :param first_observation: what :func:`~sb3_visual_td3.training_state.env_state.set_env_state` returned: where new
        episodes begin, they begin with this, and with action noise as at an episode's start
    :raises ValueError: if it is the state of another model
    """
    counters = {name: _counter(name, value) for name, value in as_given(state["counters"]).items()}
    infos, successes = as_given(state["ep_info_buffer"]), as_given(state["ep_success_buffer"])
    for info in infos:
        if not {"r", "l"} <= info.keys() or not all(is_number(info[key]) for key in ("r", "l")):
            raise ValueError(f"{info!r} is not what Monitor says of an episode")
    if first_observation is None:
        require_alike(observation_state(model._last_obs), state["last_obs"], "the last observation")
        require_alike(model._last_episode_starts, state["last_episode_starts"], "the starts of episodes")
    set_action_noise_state(model.action_noise, state["action_noise"])
    vars(model).update({name: value for name, value in counters.items() if name in vars(model)})
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
    if "frozen" in state:  # older states do not say
        for name, weight in model.policy.named_parameters():
            weight.requires_grad_(name not in state["frozen"])
    if isinstance(model, HasState) and state["extras"] is not None:
        model.set_state(as_given(state["extras"]))


def _counter(name: str, value: Any) -> Any:
    """:return: a counter, if it is one and can be its value"""
    # What remains of training falls below 0 with the last rollout, which may be longer than what is left.
    is_too_small = is_number(value) and value < 0 and name != "_current_progress_remaining"
    if name not in _COUNTERS or not is_number(value) or is_too_small:
        raise ValueError(f"the counter {name} is {value!r}: expected a number from 0 on")
    if name not in _FRACTIONS and not float(value).is_integer():
        raise ValueError(f"the counter {name} is {value!r}: expected a whole number")
    return value


def _begin_with(model: OffPolicyAlgorithm, observation: VecEnvObs) -> None:
    """Do what Stable-Baselines3 does when it has reset the environment."""
    model._last_obs = observation  # type: ignore[assignment]
    model._last_episode_starts = np.ones(model.n_envs, dtype=bool)
    if model._vec_normalize_env is not None:
        model._last_original_obs = model._vec_normalize_env.get_original_obs()
    if model.action_noise is not None:
        model.action_noise.reset()
