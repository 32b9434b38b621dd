"""Implement ``visual-td3 export``: write a trained policy as one file that does not need this package.

:mod:`sb3_visual_td3.visual_td3.export` makes the torch module that is written.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import VecNormalize, unwrap_vec_normalize

from sb3_visual_td3 import __version__
from sb3_visual_td3.common.errors import UsageError, check_output
from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.common.pictures import parts_of
from sb3_visual_td3.runs.durable_files import atomic_write
from sb3_visual_td3.visual_td3.export import ExportableActor, exportable_actor
from sb3_visual_td3.zoo.flags import check_environment, import_packages
from sb3_visual_td3.zoo.mistakes import answer
from sb3_visual_td3.zoo.plugin import register
from sb3_visual_td3.zoo.saved_run import SavedRun, find_run, read_run

OUTPUT_NAME = "action"
OPSET = 17
"""Version of ONNX's operator set. Version 17 is the first with LayerNormalization. OpenCV and ONNX Runtime can
read it."""
SUFFIXES = (".onnx", ".pt")


def run(settings: argparse.Namespace) -> int:
    """Export the policy of a run, and print what the file expects and returns.

    :param settings: the parsed arguments of ``visual-td3 export``
    :return: the exit code
    """
    register()
    try:
        path: Path = settings.output
        if path.suffix not in SUFFIXES:
            raise UsageError(f"--output {path}: expected a name that ends in {' or '.join(SUFFIXES)}")
        check_output("--output", path)
        import_packages(settings.gym_packages)
        saved = _find(settings)
        check_environment(saved.env_id, settings.gym_packages, saved.gym_packages)
        model = saved.load("cpu")
        actor = exportable_actor(model, _normalizer(saved))
        inputs = example_inputs(model, actor)
        details = {"env": saved.env_id, "algo": saved.algo, "steps": str(model.num_timesteps), "version": __version__}
        with atomic_write(path) as temporary:
            if path.suffix == ".onnx":
                write_onnx(actor, inputs, temporary, details)
            else:
                write_torchscript(actor, inputs, temporary, details)
    except Exception as error:
        return answer("export", error)
    for name, part in zip(actor.input_names, inputs, strict=True):
        kind = str(part.dtype).removeprefix("torch.")
        print(f"input  {name}: (batch, {', '.join(map(str, part.shape[1:]))}) {kind}")
    print(f"output {OUTPUT_NAME}: (batch, {', '.join(map(str, model.action_space.shape or ()))}) float32")
    print(f"The policy of {saved.model_path} is written to {path} ({path.stat().st_size / 1e6:.2f} MB)")
    return 0


def _find(settings: argparse.Namespace) -> SavedRun:
    if settings.run_dir is not None:
        return read_run(settings.run_dir, load_best=settings.load_best)
    return find_run(settings.folder, settings.algo, settings.env, settings.exp_id, load_best=settings.load_best)


def _normalizer(saved: SavedRun) -> VecNormalize | None:
    """Return the VecNormalize that scaled observations in training; None if there was none."""
    if not saved.scales_observations():
        return None
    env = saved.make_envs(1, seed=0, env_kwargs=saved.env_kwargs())
    normalizer = unwrap_vec_normalize(env)
    env.close()
    return normalizer


def example_inputs(model: BaseAlgorithm, actor: ExportableActor) -> tuple[th.Tensor, ...]:
    """Return a batch of two observations, as one tensor for each input of the actor.

    :param model: the model
    :param actor: the exported actor
    :return: tensors ``(2, ...)`` in the order of the actor's ``input_names``
    """
    parts = parts_of(model.observation_space)
    inputs = []
    for name in actor.input_names:
        space = parts[name]
        if not isinstance(space, spaces.Box):
            raise UsageError(
                f"the observation {name} is {space}: expected a Box, because only Box observations can be exported"
            )
        inputs.append(th.from_numpy(np.stack([space.sample(), space.sample()])))
    return tuple(inputs)


def write_onnx(actor: ExportableActor, inputs: tuple[th.Tensor, ...], path: Path, details: dict[str, str]) -> None:
    """Write the actor as an ONNX file.

    :param actor: the exported actor
    :param inputs: an example of each input
    :param path: path of the file
    :param details: texts for the file's metadata
    :raises UsageError: if the library onnx is missing
    """
    try:
        import onnx
    except ImportError as error:
        raise UsageError(f"an ONNX file needs the library onnx: {install_command('export')}") from error
    batch = {name: {0: "batch"} for name in (*actor.input_names, OUTPUT_NAME)}
    with warnings.catch_warnings():
        # torch's newer exporter (dynamo=True) needs onnxscript too. torch 2.13 warns that the older exporter used here
        # will be removed.
        warnings.simplefilter("ignore")
        th.onnx.export(
            actor,
            inputs,
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(actor.input_names),
            output_names=[OUTPUT_NAME],
            dynamic_axes=batch,
        )
    graph = onnx.load(str(path))
    for key, value in details.items():
        graph.metadata_props.add(key=key, value=value)
    # The names of the graph's nodes hold file paths of this machine, and nothing about the policy.
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def write_torchscript(
    actor: ExportableActor, inputs: tuple[th.Tensor, ...], path: Path, details: dict[str, str]
) -> None:
    """Write the actor as a TorchScript file, for ``torch.jit.load`` in Python and C++.

    :param actor: the exported actor
    :param inputs: an example of each input
    :param path: path of the file
    :param details: texts for the extra file ``details.json``
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 warns that TorchScript is deprecated
        traced = th.jit.trace(actor, inputs)  # type: ignore[no-untyped-call]
        th.jit.save(traced, str(path), _extra_files={"details.json": json.dumps(details)})
