"""What a hyperparameter search may try with ``visual_td3``, and what it makes of what was drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna

NET_ARCHS: Mapping[str, list[int]] = {"small": [64, 64], "medium": [256, 256], "big": [400, 300]}
"""Heads to choose from where there is no encoder: rl-zoo's for TD3."""

_PLAIN = (
    "tau",
    "actor_lr",
    "critic_lr",
    "critic_cnn_lr",
    "actor_cnn_lr",
    "grad_clip",
    "n_steps",
    "random_shift",
    "actor_objective",
    "pre_tanh_penalty",
    "target_q_clamp",
    "critic_loss",
)
"""Drawn as they are given to VisualTD3."""
_OF_POLICY = ("encoder", "trunk_dim", "layer_norm")
"""Drawn as they are given to the policy."""
_REPLACED = ("action_noise", "noise_type", "noise_std", "actor_cnn_lr")
"""What may not stay beside those drawn: noise is drawn as a schedule, and a shared encoder is no actor's."""


def sample_visual_td3_params(
    trial: optuna.Trial,
    n_actions: int,  # noqa: ARG001  rl-zoo's signature
    n_envs: int,  # noqa: ARG001
    additional_args: Mapping[str, Any],
) -> dict[str, Any]:
    """Draw hyperparameters; no combination of them is invalid.

    :param trial: draws them
    :param additional_args: ``has_encoder``: whether the policy looks at images (True by default); ``has_n_steps``:
        whether the replay buffer can add up several steps (True by default)
    :return: arguments of VisualTD3, plain data
    """
    _draw_learning(trial)
    _draw_losses(trial)
    if additional_args.get("has_n_steps", True):
        trial.suggest_int("n_steps", 1, 5)
    if additional_args.get("has_encoder", True):
        _draw_encoder(trial)
    else:
        trial.suggest_int("batch_size_pow", 5, 9)
        trial.suggest_categorical("net_arch", list(NET_ARCHS))
    return convert_visual_td3_params(trial.params)


def _draw_learning(trial: optuna.Trial) -> None:
    trial.suggest_float("one_minus_gamma", 1e-4, 0.03, log=True)  # this and the rates: rl-zoo's ranges for TD3
    trial.suggest_float("tau", 1e-3, 0.08, log=True)
    trial.suggest_float("actor_lr", 1e-5, 2e-3, log=True)
    trial.suggest_float("critic_lr", 1e-5, 2e-3, log=True)
    if trial.suggest_categorical("grad_clip", ["norm", "adaptive"]) == "norm":
        trial.suggest_float("max_grad_norm", 0.1, 1000.0, log=True)  # at its end it never acts
    else:
        trial.suggest_float("max_grad_ratio", 0.01, 1.0, log=True)  # around DreamerV3's 0.3
    trial.suggest_float("noise_start", 0.1, 0.8)
    trial.suggest_float("noise_end_fraction", 0.05, 1.0)


def _draw_losses(trial: optuna.Trial) -> None:
    trial.suggest_categorical("actor_objective", ["q1", "min", "mean"])
    trial.suggest_float("pre_tanh_penalty", 1e-6, 1e-1, log=True)  # MR.Q has 1e-5, the visual preset 5e-3
    trial.suggest_categorical("target_q_clamp", [True, False])
    trial.suggest_categorical("critic_loss", ["mse", "huber"])
    trial.suggest_categorical("layer_norm", [True, False])


def _draw_encoder(trial: optuna.Trial) -> None:
    trial.suggest_int("batch_size_pow", 6, 8)  # an update of 256 pictures takes a processor a quarter of a second
    trial.suggest_float("critic_cnn_lr", 1e-5, 2e-3, log=True)
    if trial.suggest_categorical("encoder", ["shared", "separate"]) == "separate":
        trial.suggest_float("actor_cnn_lr", 1e-5, 2e-3, log=True)
    trial.suggest_categorical("trunk_dim", [None, 50, 100])
    trial.suggest_int("random_shift", 0, 6)


def convert_visual_td3_params(sampled_params: Mapping[str, Any]) -> dict[str, Any]:
    """Make hyperparameters of what a trial has drawn: the very ones that it trained with.

    :param sampled_params: ``trial.params``
    :return: arguments of VisualTD3, plain data
    :raises ValueError: if some are missing, as they are where a trial ended while it drew
    """
    try:
        return _converted(sampled_params)
    except KeyError as error:
        raise ValueError(f"the trial has not drawn {error.args[0]}: it ended before it could train") from error


def _converted(drawn: Mapping[str, Any]) -> dict[str, Any]:
    start = drawn["noise_start"]
    hyperparams = {
        "gamma": 1 - drawn["one_minus_gamma"],
        "batch_size": 2 ** drawn["batch_size_pow"],
        "max_grad_norm": drawn["max_grad_norm" if drawn["grad_clip"] == "norm" else "max_grad_ratio"],
        "noise_schedule": f"lin_{start!r}_{start * drawn['noise_end_fraction']!r}",
    }
    hyperparams |= {name: drawn[name] for name in _PLAIN if name in drawn}
    policy_kwargs = {name: drawn[name] for name in _OF_POLICY if name in drawn}
    if "net_arch" in drawn:
        policy_kwargs["net_arch"] = list(NET_ARCHS[drawn["net_arch"]])
    return {**hyperparams, "policy_kwargs": policy_kwargs}


def with_sampled(hyperparams: Mapping[str, Any], sampled: Mapping[str, Any]) -> dict[str, Any]:
    """Put what was drawn in place of what a hyperparameter file says.

    :param hyperparams: of the file
    :param sampled: of :func:`sample_visual_td3_params` or :func:`convert_visual_td3_params`
    :return: all of them; ``policy_kwargs`` merge key by key
    :raises ValueError: if the file's ``policy_kwargs`` are Python code
    """
    given = hyperparams.get("policy_kwargs") or {}
    if not isinstance(given, Mapping):
        raise ValueError(f"policy_kwargs is Python code, {given!r}: write a yml mapping, which can be merged")
    policy_kwargs = {**given, **sampled["policy_kwargs"]}
    if "encoder" in sampled["policy_kwargs"]:
        policy_kwargs.pop("share_features_extractor", None)
    kept = {name: value for name, value in hyperparams.items() if name not in _REPLACED}
    return {**kept, **sampled, "policy_kwargs": policy_kwargs}
