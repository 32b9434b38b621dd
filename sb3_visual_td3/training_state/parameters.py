"""Weights and optimizers out of Stable-Baselines3's own zip, without running what it pickles."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Mapping
from pickle import UnpicklingError
from typing import Any

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.save_util import recursive_getattr

_VARIABLES = "pytorch_variables"
_SUFFIX = ".pth"


def load_parameters(model: OffPolicyAlgorithm, zip_path: str | os.PathLike[str]) -> None:
    """Give a model the weights, optimizers and other tensors that ``model.save`` wrote, in place.

    Only the ``.pth`` entries are read, as weights; the pickled ``data`` entry is never opened.

    :param model: made alike
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
