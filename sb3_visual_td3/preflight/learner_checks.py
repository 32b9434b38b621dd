"""Check, on a copy of the model, that gradients reach every part of a learner and that the critic can fit one batch."""

from __future__ import annotations

import copy
import inspect
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from typing import Any

import numpy as np
import torch as th
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.her import HerReplayBuffer
from torch import nn

from sb3_visual_td3.common.types import NETWORKS
from sb3_visual_td3.preflight.findings import Examination, Progress
from sb3_visual_td3.preflight.rollouts import Observations, Rollout, transitions
from sb3_visual_td3.training_state.random_state import random_states_kept

N_UPDATES = 4
"""Minimum number of updates whose gradients are recorded. With ``policy_delay=2``, two of them update the actor."""
BATCH_SIZE = 32
N_FIT_STEPS, FIT_S = 100, 10.0
"""Maximum number of gradient steps on one batch, and their maximum processor time in seconds."""
FIT_RATE = 1e-3
FITTED = 0.5
"""The critic can fit the batch if its loss falls below this fraction of the variance of the batch's targets."""
SATURATED_ACTION, SATURATED_SHARE = 0.95, 0.5
"""An untrained policy is saturated if more than SATURATED_SHARE of its actions exceed SATURATED_ACTION in magnitude, in
a range of -1 to 1."""
LEAK = 1e-4
"""The actor's gradient has a second path, such as a shared encoder, if more than this fraction of the gradient remains
after the path through the action is cut."""
LOW_PRECISION = 0.1


def check_learner(model: OffPolicyAlgorithm, rollout: Rollout, examination: Examination, progress: Progress) -> None:
    """Run all checks of a learner.

    :param model: a model with ``actor``, ``critic`` and ``critic_target``, such as TD3, DDPG, SAC or TQC
    :param rollout: transitions to learn from
    :param examination: collects the results
    :param progress: function called with the name of each part
    """
    names = ("saturated_at_start", "group_without_gradient", "target_frozen", "leaking_features", "cannot_fit_batch")
    obstacle = _obstacle(model, rollout, examination)
    if obstacle is not None:
        for name in names:
            examination.skipped(name, obstacle)
        return
    with random_states_kept():
        progress("the untrained policy")
        _check_saturation(model, rollout, examination)
        progress("some updates")
        _check_updates(model, rollout, examination)
        progress("the path of the actor's gradient")
        _check_leak(model, rollout, examination)
        progress("one batch")
        _check_fit(model, rollout, examination)
        _check_precision(model, rollout, examination)


def _obstacle(model: OffPolicyAlgorithm, rollout: Rollout, examination: Examination) -> str | None:
    """Return the reason why the learner cannot be checked; None if it can be."""
    if not all(hasattr(model, name) for name in (*NETWORKS, "critic_target")):
        return f"{type(model).__name__} has no networks actor and critic"
    # Without valid transitions the checks of the learner would only repeat the problems of the environment.
    for finding in examination.findings:
        if finding.id in ("non_finite_reward", "non_finite_observation"):
            return finding.title.lower()
    if isinstance(model.replay_buffer, HerReplayBuffer) and not rollout.episodes():
        return f"HerReplayBuffer needs a complete episode, and none of the {rollout.n_steps} steps ended an episode"
    return None


def copy_of(model: OffPolicyAlgorithm, rollout: Rollout) -> OffPolicyAlgorithm:
    """Return a copy of a model for test updates, with the transitions of a rollout in a separate buffer.

    :param model: the model; it is not changed
    :param rollout: transitions to store
    :return: the copy, which shares only the environment
    """
    shared = [model.env, model.replay_buffer, getattr(model, "_logger", None), model._vec_normalize_env]
    # deepcopy does not copy objects in its memo. The environment is put there because it often cannot be copied.
    memo = {id(each): each for each in shared if each is not None}
    twin = copy.deepcopy(model, memo)
    # The model's observers must not get these updates.
    if hasattr(twin, "observers"):
        twin.observers = []
    twin.set_logger(Logger(folder=None, output_formats=[]))
    twin.replay_buffer = _filled_buffer(model, rollout)
    return twin


def _filled_buffer(model: OffPolicyAlgorithm, rollout: Rollout) -> ReplayBuffer:
    """Return a small buffer of the model's class and settings, with the rollout's transitions."""
    original = model.replay_buffer
    assert original is not None
    # The constructors of all parent classes are read, because NStepReplayBuffer passes its arguments on as **kwargs.
    constructors = [vars(cls)["__init__"] for cls in type(original).__mro__ if "__init__" in vars(cls)]
    names = {name for each in constructors for name in inspect.signature(each).parameters}
    arguments = {name: getattr(original, name) for name in names if hasattr(original, name)}
    arguments["buffer_size"] = (rollout.n_steps + 1) * model.n_envs
    buffer = type(original)(**arguments)
    for transition in transitions(rollout):
        observations, next_observations, actions, rewards, dones, infos = transition
        scaled = model.policy.scale_action(actions)
        buffer.add(observations, next_observations, scaled, rewards, dones, infos)
    return buffer


# ---- the untrained policy


def _seen_by_policy(model: OffPolicyAlgorithm, rollout: Rollout, n: int = BATCH_SIZE) -> Observations:
    """Return some observations of the rollout as the policy gets them, ``(n, ...)``."""
    steps = np.linspace(0, rollout.n_steps - 1, min(n, rollout.n_steps)).astype(int)
    first = rollout.observations[0]
    chosen: Observations
    if isinstance(first, Mapping):
        chosen = {key: np.stack([rollout.observations[step][key][0] for step in steps]) for key in first}
    else:
        chosen = np.stack([np.asarray(rollout.observations[step])[0] for step in steps])
    normalizer = model._vec_normalize_env
    if isinstance(normalizer, VecNormalize):
        return normalizer.normalize_obs(chosen)
    return chosen


def _check_saturation(model: OffPolicyAlgorithm, rollout: Rollout, examination: Examination) -> None:
    observations: Any = _seen_by_policy(model, rollout)
    # predict() may use an averaged policy, but the actor itself is the network that learns.
    with getattr(model.policy, "without_average", nullcontext)():
        actions, _ = model.predict(observations, deterministic=True)
    scaled = np.abs(model.policy.scale_action(actions))
    share = float((scaled > SATURATED_ACTION).mean())
    examination.judge(
        "saturated_at_start",
        share > SATURATED_SHARE,
        f"{share:.0%} of the untrained policy's actions are larger than {SATURATED_ACTION:g} in magnitude, in a range "
        "of -1 to 1",
        round(share, 3),
    )


# ---- updates


class GradientRecorder:
    """Sum the squared gradients that the optimizers of a model use, for each weight.

    :param model: the model; its optimizers get hooks, which are not removed
    """

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        self.squares: dict[str, dict[int, float]] = {name: {} for name in NETWORKS}
        for name in NETWORKS:
            optimizer = getattr(model, name).optimizer
            optimizer.register_step_pre_hook(self._hook(self.squares[name]))

    @staticmethod
    def _hook(squares: dict[int, float]) -> Callable[..., None]:
        def before_step(optimizer: th.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
            for group in optimizer.param_groups:
                for weight in group["params"]:
                    if weight.grad is not None:
                        square = float(weight.grad.detach().float().pow(2).sum())
                        squares[id(weight)] = squares.get(id(weight), 0.0) + square

        return before_step

    def norm(self, network: str) -> float:
        """Return the norm of the recorded gradients of all weights in a network's optimizer."""
        return math.sqrt(sum(self.squares[network].values()))

    def of_weights(self, weights: list[nn.Parameter]) -> float:
        """Return the norm of the recorded gradients of some weights, whichever optimizer holds them."""
        total = 0.0
        for squares in self.squares.values():
            total += sum(squares.get(id(weight), 0.0) for weight in weights)
        return math.sqrt(total)


def _groups_of(model: OffPolicyAlgorithm) -> dict[str, list[nn.Parameter]]:
    """Return the weights by group; an encoder that both networks share belongs to the critic."""
    groups: dict[str, list[nn.Parameter]] = {}
    encoder_of_critic: set[int] = set()
    for network in reversed(NETWORKS):
        module = getattr(model, network)
        encoder = [weight for name, weight in module.named_parameters() if name.startswith("features_extractor.")]
        heads = [weight for name, weight in module.named_parameters() if not name.startswith("features_extractor.")]
        if network == "critic":
            encoder_of_critic = {id(weight) for weight in encoder}
        else:
            encoder = [weight for weight in encoder if id(weight) not in encoder_of_critic]
        if encoder:
            groups[f"{network}_cnn"] = encoder
        if heads:
            groups[f"{network}_mlp"] = heads
    return groups


def _n_updates(model: OffPolicyAlgorithm) -> int:
    """Return how many updates to make, so that two of them update the actor and the target networks."""
    return max(N_UPDATES, 2 * getattr(model, "policy_delay", 1))


def _check_updates(model: OffPolicyAlgorithm, rollout: Rollout, examination: Examination) -> None:
    twin = copy_of(model, rollout)
    n_updates = _n_updates(model)
    recorder = GradientRecorder(twin)
    before = [weight.detach().clone() for weight in twin.critic_target.parameters()]  # type: ignore[attr-defined]
    twin.train(gradient_steps=1, batch_size=BATCH_SIZE)
    begin = time.perf_counter()
    twin.train(gradient_steps=n_updates - 1, batch_size=BATCH_SIZE)
    seconds = (time.perf_counter() - begin) / (n_updates - 1)
    # The batch is smaller than in the run, where updates take longer: the number is only a rough guide.
    examination.passed("updates_per_second", {"batch_size": BATCH_SIZE, "updates_per_second": round(1 / seconds, 1)})

    norms, frozen = {}, []
    for name, weights in _groups_of(twin).items():
        norms[name] = recorder.of_weights(weights)
        if norms[name] == 0:
            frozen.append(name)
    evidence = f"{' and '.join(frozen)}: no gradient in {n_updates} updates"
    examination.judge(
        "group_without_gradient", bool(frozen), evidence, {k: float(f"{v:.3g}") for k, v in norms.items()}
    )

    after = [weight.detach() for weight in twin.critic_target.parameters()]  # type: ignore[attr-defined]
    distance = math.sqrt(sum(float((a - b).pow(2).sum()) for a, b in zip(after, before, strict=True)))
    critic = list(twin.critic.parameters())  # type: ignore[attr-defined]
    moved = recorder.norm("critic") > 0
    if "target_frozen" not in examination.checks or examination.checks["target_frozen"].status != "fail":
        evidence = f"{n_updates} updates with tau={model.tau:g} change the critics, but not their target networks"
        examination.judge("target_frozen", moved and bool(critic) and distance == 0, evidence, float(f"{distance:.3g}"))


# ---- the path of the actor's gradient


def _without_action_gradient(method: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a method of a critic so that no gradient reaches the actions, which are the method's second argument."""

    @wraps(method)
    def detached(first: Any, actions: th.Tensor, *args: Any, **kwargs: Any) -> Any:
        return method(first, actions.detach(), *args, **kwargs)

    return detached


def _check_leak(model: OffPolicyAlgorithm, rollout: Rollout, examination: Examination) -> None:
    """Stop the gradient through the action, and check whether a gradient still reaches the actor by another path."""
    whole = _actor_gradient(model, rollout, is_cut=False)
    if whole == 0:
        examination.skipped("leaking_features", "the actor gets no gradient")
        return
    remaining = _actor_gradient(model, rollout, is_cut=True)
    share = remaining / whole
    examination.judge(
        "leaking_features",
        share > LEAK,
        f"{share:.0%} of the actor's gradient remains after the gradient through its action is cut",
        float(f"{share:.3g}"),
    )


def _actor_gradient(model: OffPolicyAlgorithm, rollout: Rollout, is_cut: bool) -> float:
    """Return the norm of the actor's gradients over some updates; ``is_cut`` blocks the gradient through the action."""
    twin: Any = copy_of(model, rollout)
    # Penalties and the entropy bonus depend only on the actor, so they are left out.
    if hasattr(twin, "settings"):
        twin.settings = replace(twin.settings, pre_tanh_penalty=0.0)
    if hasattr(twin, "ent_coef_optimizer"):
        twin.ent_coef_optimizer = None
        twin.ent_coef_tensor = th.zeros(1, device=twin.device)
    if is_cut:
        for name in ("forward", "q1_forward", "score"):
            method = getattr(twin.critic, name, None)
            if method is not None:
                setattr(twin.critic, name, _without_action_gradient(method))
    recorder = GradientRecorder(twin)
    try:
        th.manual_seed(0)
        twin.train(gradient_steps=_n_updates(model), batch_size=BATCH_SIZE)
    except RuntimeError as error:
        # The loss no longer depends on any weight, so there is no other path.
        if is_cut and "does not require grad" in str(error):
            return 0.0
        raise
    return recorder.norm("actor")


# ---- one batch


def _batch(model: OffPolicyAlgorithm, rollout: Rollout) -> tuple[Observations, NDArray[Any], Any, th.Tensor]:
    """Return observations and scaled actions ``(batch, ...)`` of the rollout, as arrays and as tensors."""
    observations = _seen_by_policy(model, rollout)
    tensors, _ = model.policy.obs_to_tensor(observations)
    n = min(BATCH_SIZE, rollout.n_steps)
    steps = np.linspace(0, rollout.n_steps - 1, n).astype(int)
    actions = model.policy.scale_action(np.stack([rollout.actions[step][0] for step in steps]))
    return observations, actions, tensors, th.as_tensor(actions, dtype=th.float32, device=model.device)


def _check_fit(model: OffPolicyAlgorithm, rollout: Rollout, examination: Examination) -> None:
    """Check that a copy of the critic can fit one batch, whose targets depend on both actions and observations."""
    critic: Any = copy.deepcopy(model.critic)  # type: ignore[attr-defined]
    weights = [weight for weight in critic.parameters() if weight.requires_grad]
    if not weights:
        examination.found("cannot_fit_batch", "all weights of the critic are frozen")
        return
    observations, actions, tensors, action_tensor = _batch(model, rollout)
    n = len(actions)
    targets = _fit_targets(observations, actions).to(model.device)
    optimizer = th.optim.Adam(weights, lr=FIT_RATE)
    # The processor time of this thread is used, so a busy machine does not reduce the number of steps. process_time()
    # would add up the time of all threads, so it would allow fewer steps on many cores.
    begin, losses = time.thread_time(), []
    for _ in range(N_FIT_STEPS):
        values = critic(tensors, action_tensor)
        values = values if isinstance(values, tuple) else (values,)
        # TQC returns quantiles, (batch, n_critics, n_quantiles); their mean is the value.
        loss = sum((value.flatten(1).mean(dim=1) - targets).pow(2).mean() for value in values) / len(values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if losses[-1] < FITTED / 2 or time.thread_time() - begin > FIT_S:
            break
    # The targets have a variance of 1, so a critic with a constant value has a loss of 1.
    best = min(losses)
    if not math.isfinite(losses[-1]):
        best = math.inf
    evidence = f"after {len(losses)} gradient steps on {n} transitions, the loss is {best:.2f} of the targets' variance"
    examination.judge("cannot_fit_batch", not best < FITTED, evidence, float(f"{best:.3g}"))


@th.no_grad()
def _check_precision(model: OffPolicyAlgorithm, rollout: Rollout, examination: Examination) -> None:
    """Compare the Q values that the critics compute in the training precision and in float32."""
    arithmetic: Any = getattr(model, "_arithmetic", None)
    if arithmetic is None or arithmetic.dtype == th.float32:
        examination.skipped("low_precision", "the networks learn in float32")
        return
    critic: Any = model.critic  # type: ignore[attr-defined]
    _, _, tensors, actions = _batch(model, rollout)
    exact = th.cat(critic(tensors, actions), dim=1).float()
    with arithmetic.autocast():
        rounded = th.cat(critic(tensors, actions), dim=1).float()
    size = float(exact.pow(2).mean().sqrt())
    difference = float((rounded - exact).pow(2).mean().sqrt()) / max(size, 1e-6)
    evidence = f"values in {arithmetic.dtype} differ by {difference:.1%} from the values in float32"
    examination.judge("low_precision", difference > LOW_PRECISION, evidence, round(difference, 4))


def _fit_targets(observations: Observations, actions: NDArray[Any]) -> th.Tensor:
    """Return artificial targets ``(batch,)`` that a critic should be able to fit: they follow from its inputs."""
    parts = list(observations.values()) if isinstance(observations, Mapping) else [observations]
    columns = [actions.reshape(len(actions), -1).sum(axis=1)]
    columns += [np.asarray(part, np.float64).reshape(len(part), -1).mean(axis=1) for part in parts]
    total = np.zeros(len(actions))
    for column in columns:
        if column.std() > 1e-9:
            total += (column - column.mean()) / column.std()
    if total.std() > 0:
        total /= total.std()
    return th.as_tensor(total, dtype=th.float32)
