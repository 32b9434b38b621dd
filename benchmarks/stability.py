"""Which settings, or which average of the weights, give a last policy that is no worse than the best policy of the run?

Every run trains on the eight training maps of LiteDriving-v0, without other cars, as in benchmarks/learning_study.py:
10,000 steps, batch 128, one update per two steps unless the arm says otherwise. Every 1,000 steps, several policies of
the run drive ten episodes each on the two held-out maps, from the same places: the current actor; TD3's target actor;
exponential moving averages of the weights of the actor and its encoder over the updates, with Adam's bias correction;
and the actor with the best return in training. The evaluation of a policy does not change the training, so one run
measures all policies. The current actor also drives on the training maps, to distinguish forgetting (worse on all maps)
from overfitting (worse only on the held-out maps). At the end each policy drives 100 episodes from other places.

An arm is the preset, or the preset with a change. Most changes were measured when the preset had gamma 0.99, and their
arms still start from gamma 0.99: compare such an arm with the arm "gamma 0.99". Only the arms "rewards scaled with
gamma 0.99" and "gamma 0.95, one update per step" change the present preset: compare them with the arm "visual".

    python benchmarks/stability.py                                  # the preset, ten seeds
    python benchmarks/stability.py --arms 'one update per step' --seeds 777 4242
    python benchmarks/stability.py --seeds 10 11 --policies last 'average 0.999'   # measure two policies, in less time
    python benchmarks/stability.py --table                          # print the results and run nothing
    python benchmarks/stability.py --table --page benchmarks/README.md   # and write them into that page

Rows are added to benchmarks/results/stability.csv as soon as they are measured, and finished runs are not repeated. An
interrupted run is started again, and its rows are dropped. The column `minutes` is the processor time since the run
began, evaluations included. The column `q1` is the mean of the first critic over 256 replayed transitions.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from learning_arms import ARMS as LEARNING_ARMS
from learning_arms import ENV, WORLDS, Arm, changed_preset
from learning_study import driver_of, examine, learner, summary
from result_rows import Row, add, drop, read
from stability_table import COLUMNS, finished, table, with_table
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.drives import drive_episodes
from sb3_visual_td3.common.types import Network, NetworkUpdate
from sb3_visual_td3.visual_td3.batches import Batch
from sb3_visual_td3.visual_td3.policies import head

WORLD = "empty road"
RESULTS = Path(__file__).parent / "results" / "stability.csv"
DECAYS = (0.99, 0.995, 0.998, 0.999)
"""Decays of the exponential averages, per update of the critics."""
EVAL_FREQ, N_EVAL_EPISODES, EVAL_SEED = 1_000, 10, 1_000
"""Steps between two evaluations, episodes of each evaluation, and the seed of their starting places: the values that
``visual-td3 train`` uses for LiteDriving-v0."""
ON_TRAINING_MAPS, IN_TRAINING = "last on training maps", "best in training"
POLICIES = ("last", "target", *(f"average {decay:g}" for decay in DECAYS), IN_TRAINING, ON_TRAINING_MAPS)


class NoisyActorLoss(VisualTD3):
    """DrQ-v2's noise: add clipped exploration noise to the actions in the actor's loss and in the critics' target.

    Source: Yarats et al. 2021, "Mastering Visual Continuous Control" (DrQ-v2).
    """

    noise_clip = 0.3

    def train(self, gradient_steps: int, batch_size: int = 100) -> None:
        """Make the updates with the current exploration noise."""
        assert self._noise_schedule is not None
        self.target_policy_noise = self._noise_schedule(self._current_progress_remaining)
        self.target_noise_clip = self.noise_clip
        super().train(gradient_steps, batch_size)

    def with_noise(self, actions: th.Tensor) -> th.Tensor:
        """Add noise to actions and clamp them to [-1, 1]; the gradient ignores the clamping."""
        noise = th.randn_like(actions) * self.target_policy_noise
        noisy = actions + noise.clamp(-self.noise_clip, self.noise_clip)
        return noisy + (noisy.clamp(-1, 1) - noisy).detach()

    def update_actor(self, batch: Batch) -> th.Tensor:
        """Update the actor with noisy actions in its loss."""
        score = self.critic.score
        self.critic.score = lambda features, actions, **kwargs: score(  # type: ignore[method-assign]
            features, self.with_noise(actions), **kwargs
        )
        try:
            return super().update_actor(batch)
        finally:
            del self.critic.score


class ChurnPenalty(VisualTD3):
    """CHAIN's penalty: an update should not change the actor's actions in states outside the batch.

    The states are those of the previous batch. The penalty is the mean squared difference between the actions of the
    current actor and those of the actor before its last optimizer step. ``churn_weight`` is the factor on the penalty.
    Its value is a guess, and assumes that Q-values are about one.

    Source: Tang and Berseth 2024, "Improving Deep Reinforcement Learning by Reducing the Chain Effect of Value and
    Policy Churn" (CHAIN).
    """

    churn_weight = 1.0
    _batches: tuple[Batch | None, Batch | None] = (None, None)
    _before: tuple[nn.Module, nn.Module] | None = None
    """Copies of the actor's trunk and head from before its last optimizer step."""

    def update_actor(self, batch: Batch) -> th.Tensor:
        """Update the actor with the churn penalty added to its loss."""
        self._batches = self._batches[1], batch
        return super().update_actor(batch)

    def churn(self) -> th.Tensor:
        """Return the mean squared change of the actions by the last update, a scalar."""
        batch = self._batches[0]
        if batch is None or self._before is None:
            return th.zeros((), device=self.device)
        trunk, mu = self._before
        with self._arithmetic.autocast(), th.no_grad():
            features = self.actor.encode(batch.observations)
            actions = th.tanh(head(mu[:-1], trunk(features)))  # type: ignore[index]
        with self._arithmetic.autocast():
            return (self.actor.act(features) - actions).pow(2).mean()

    def _optimize(self, network: Network, loss: th.Tensor, *args: Any) -> None:
        if network == "actor":
            loss = loss + self.churn_weight * self.churn()
            self._before = deepcopy((self.actor.trunk, self.actor.mu))
        super()._optimize(network, loss, *args)


class FrozenRewardScale(VisualTD3):
    """Freeze VecNormalize's reward statistics after ``frozen_after`` steps."""

    frozen_after = 1_000

    def _on_step(self) -> None:
        super()._on_step()
        assert isinstance(self.env, VecNormalize)
        self.env.training = self.num_timesteps < self.frozen_after


class LateFrozenRewardScale(FrozenRewardScale):
    """Freeze VecNormalize's reward statistics later, when the car has learned to drive."""

    frozen_after = 3_000


_SCALED_WITH_GAMMA_099 = {"norm_obs": False, "norm_reward": True, "gamma": 0.99}
"""VecNormalize's arguments, with a discount that is not the algorithm's."""

ARMS = {
    "visual": LEARNING_ARMS["visual"],
    "rewards scaled with gamma 0.99": Arm(VisualTD3, "visual_td3", {"normalize": _SCALED_WITH_GAMMA_099}),
    "gamma 0.95, one update per step": Arm(VisualTD3, "visual_td3", {"train_freq": 1}),
    "gamma 0.99": LEARNING_ARMS["gamma 0.99"],
    "one update per step": changed_preset(train_freq=1),
    "noise in the actor's loss": replace(LEARNING_ARMS["gamma 0.99"], algorithm=NoisyActorLoss),
    "reward scale frozen at 1,000": replace(LEARNING_ARMS["gamma 0.99"], algorithm=FrozenRewardScale),
    "reward scale frozen at 3,000": replace(LEARNING_ARMS["gamma 0.99"], algorithm=LateFrozenRewardScale),
    "churn penalty": replace(LEARNING_ARMS["gamma 0.99"], algorithm=ChurnPenalty),
    "raw rewards": changed_preset(normalize=None),
    "Adam, betas 0.9 and 0.9": changed_preset(policy_kwargs={"optimizer_kwargs": {"betas": (0.9, 0.9)}}),
    "AdamW, weight decay 1e-2": changed_preset(
        policy_kwargs={"optimizer_class": th.optim.AdamW, "optimizer_kwargs": {"weight_decay": 1e-2}}
    ),
    "LayerNorm heads": LEARNING_ARMS["LayerNorm heads"],
    "tau 0.02": LEARNING_ARMS["tau 0.02"],
    "tau 0.05": changed_preset(tau=0.05),
    "5-step returns": LEARNING_ARMS["5-step returns"],
    "10-step returns": changed_preset(n_steps=10),
    "learning rate 1e-4": LEARNING_ARMS["learning rate 1e-4"],
    "learning rate 2e-4": changed_preset(learning_rate=2e-4),
    "gamma 0.98": LEARNING_ARMS["gamma 0.98"],
}


class Average:
    """An exponential moving average of weights, with the bias correction of Adam.

    :param decay: weight of the earlier average in each step, before the bias correction, in [0, 1)
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.value: list[th.Tensor] = []
        """Empty before the first step."""
        self._n_steps = 0

    @th.no_grad()
    def add(self, weights: Sequence[th.Tensor]) -> None:
        """Add the current weights to the average."""
        self._n_steps += 1
        if not self.value:
            self.value = [weight.clone() for weight in weights]
        # Adam's correction as part of the step size: weights that do not change keep their value, bit for bit.
        share = (1.0 - self.decay) / (1.0 - self.decay**self._n_steps)
        th._foreach_lerp_(self.value, list(weights), share)


class Averages:
    """Keeps exponential moving averages of the weights of a model's actor and encoder, one for each decay.

    It is an observer of VisualTD3's updates, and adds the weights to the averages after every update of the critics.
    """

    def __init__(self, model: VisualTD3, decays: Sequence[float]) -> None:
        self._weights = weights_of(model.actor)
        self.averages = {f"average {decay:g}": Average(decay) for decay in decays}

    def after_backward(self, update: NetworkUpdate) -> None:
        """Do nothing: gradients are not needed."""

    def after_clipping(self, update: NetworkUpdate) -> None:
        """Do nothing: gradients are not needed."""

    def after_step(self, update: NetworkUpdate) -> None:
        """Add the current weights to the averages after each optimizer step of the critics."""
        if update.network == "critic":
            for average in self.averages.values():
                average.add(self._weights)


class Checkpoint:
    """Keeps the policy that had the best returns in training.

    ``add`` keeps the current policy if the mean return of the most recent training episodes is the highest so far. No
    second simulator is needed. Source: the checkpoints of Fujimoto et al. 2023 (TD7). TD7 pauses its updates while it
    judges a policy; here the training continues.

    :param window: number of episodes in this mean
    """

    def __init__(self, window: int = 5) -> None:
        self._returns: deque[float] = deque(maxlen=window)
        self._best = -math.inf
        self.value: list[th.Tensor] = []
        """The weights of the kept policy; empty until ``window`` episodes have ended."""

    def add(self, episode_return: float, weights: Sequence[th.Tensor]) -> None:
        """Judge the policy, given a training episode that has ended."""
        self._returns.append(episode_return)
        mean = sum(self._returns) / len(self._returns)
        if len(self._returns) == self._returns.maxlen and mean > self._best:
            self._best = mean
            self.value = [weight.detach().clone() for weight in weights]


def weights_of(actor: nn.Module) -> list[th.Tensor]:
    """Return the weights of an actor and of the encoder that it reads, which may be the critic's."""
    encoder: nn.Module = actor.features_extractor  # type: ignore[assignment]
    return list({id(weight): weight for module in (actor, encoder) for weight in module.parameters()}.values())


@contextmanager
def deployed(model: VisualTD3, weights: Sequence[th.Tensor]) -> Iterator[None]:
    """Let the model's policy act with other weights within the context, and restore its own afterwards, bit for bit."""
    own = weights_of(model.actor)
    kept = [weight.detach().clone() for weight in own]
    try:
        _put(own, weights)
        with model.policy.without_average():
            yield
    finally:
        _put(own, kept)


@th.no_grad()
def _put(weights: Sequence[th.Tensor], values: Sequence[th.Tensor]) -> None:
    for weight, value in zip(weights, values, strict=True):
        weight.copy_(value)


class Watcher(BaseCallback):
    """Evaluates every policy of the run regularly, and adds a row for each to the results."""

    model: VisualTD3

    def __init__(self, key: Row, output: Path, eval_freq: int, policies: Sequence[str]) -> None:
        super().__init__()
        self._key, self._output, self._eval_freq, self._measured = key, output, eval_freq, policies
        self._begin = time.process_time()
        self._checkpoint = Checkpoint()
        kwargs = [{"maps": maps, "n_cars": 0} for maps in ("held_out", "train")]
        self._envs = {str(kw["maps"]): make_vec_env(ENV, N_EVAL_EPISODES, env_kwargs=kw) for kw in kwargs}

    def _init_callback(self) -> None:
        self._averages = Averages(self.model, DECAYS)
        self.model.observers.append(self._averages)

    def policies(self) -> dict[str, Sequence[th.Tensor]]:
        """Return the weights of each policy that the run could deploy now, by name."""
        averages = {name: average.value for name, average in self._averages.averages.items()}
        own = {"last": weights_of(self.model.actor), "target": weights_of(self.model.actor_target)}
        kept = {IN_TRAINING: self._checkpoint.value} if self._checkpoint.value else {}
        return {**own, **averages, **kept}

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            if "episode" in info and self.model._n_updates > 0:
                self._checkpoint.add(info["episode"]["r"], weights_of(self.model.actor))
        if self.num_timesteps % self._eval_freq == 0 and self.model._n_updates > 0:
            self._measure(self._drive)
        return True

    def _on_training_end(self) -> None:
        self._measure(lambda maps: examine(driver_of(self.model), WORLD, maps))
        for env in self._envs.values():
            env.close()

    def _drive(self, maps: str) -> dict[str, Any]:
        return summary(drive_episodes(driver_of(self.model), self._envs[maps], EVAL_SEED))

    def _measure(self, drive: Callable[[str], dict[str, Any]]) -> None:
        q1, policies = mean_q1(self.model), self.policies()
        for policy, weights in {**policies, ON_TRAINING_MAPS: policies["last"]}.items():
            if policy not in self._measured:
                continue
            with deployed(self.model, weights):
                found = drive("train" if policy == ON_TRAINING_MAPS else "held_out")
            row = {
                **self._key,
                "step": self.num_timesteps,
                "policy": policy,
                "episodes": found["n_episodes"],
                "driven_to_the_end": round(found["driven_to_the_end"], 3),
                "distance_m": round(found["distance_m"], 1),
                "return": round(found["return"], 2),
                "minutes": round((time.process_time() - self._begin) / 60, 1),
                "q1": round(q1, 4),
            }
            add(row, self._output, COLUMNS)


@th.no_grad()
def mean_q1(model: VisualTD3) -> float:
    """Return the first critic's mean value of 256 replayed transitions; the training's random state stays the same."""
    assert model.replay_buffer is not None
    state = np.random.get_state()
    batch = model.replay_buffer.sample(256)
    np.random.set_state(state)
    return float(model.critic.q1_forward(batch.observations, batch.actions).mean())


def run(
    arm: str, seed: int, output: Path, n_timesteps: int, eval_freq: int, policies: Sequence[str] = POLICIES
) -> None:
    """Train an arm with a seed, evaluate ``policies``, and replace the rows of this arm and seed in ``output``."""
    key = {"arm": arm, "seed": seed}
    drop(key, output, COLUMNS)
    model = learner(ARMS[arm], replace(WORLDS[WORLD], n_timesteps=n_timesteps), seed, "cpu")
    assert isinstance(model, VisualTD3)
    model.learn(n_timesteps, callback=Watcher(key, output, eval_freq, policies))


def main() -> None:
    """Make the missing runs and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["visual"], choices=ARMS, metavar="ARM", help=", ".join(ARMS))
    parser.add_argument(
        "--seeds",
        type=int,
        nargs="+",
        default=list(range(10)),
        help="train each arm once with each of these seeds (default: seeds 0 to 9)",
    )
    parser.add_argument(
        "--policies",
        nargs="+",
        default=POLICIES,
        choices=POLICIES,
        metavar="POLICY",
        help=f"policies to measure in each run: {', '.join(map(repr, POLICIES))} (default: all)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    parser.add_argument("--page", type=Path, help="Markdown page whose table is replaced by the printed one")
    settings = parser.parse_args()
    th.set_num_threads(1)
    # All arms of a seed come before the next seed, so that a benchmark that is stopped early compares all arms.
    for seed in settings.seeds if not settings.table else []:
        for arm in settings.arms:
            if (arm, seed) not in finished(read(settings.output)):
                print(f"{arm}, seed {seed}", flush=True)
                run(arm, seed, settings.output, WORLDS[WORLD].n_timesteps, EVAL_FREQ, settings.policies)
    lines = table(read(settings.output), list(ARMS))
    print(lines)
    if settings.page is not None:
        settings.page.write_text(with_table(settings.page.read_text(encoding="utf-8"), lines), encoding="utf-8")


if __name__ == "__main__":
    main()
