"""Train an algorithm on five small environments with known answers, to find a part of it that is broken.

Source of the idea: Andy Jones, "Debugging Reinforcement Learning Systems" (probe environments).
"""

from __future__ import annotations

import inspect
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_visual_td3.preflight.findings import Examination, Progress

SIZE = 36
"""Height and width of the pictures in pixels: the smallest size that NatureCNN accepts."""
BLACK, WHITE = 85, 255
"""Pixel values of the black and the white picture. With 0 for black, only a network's biases would have an effect."""
GAMMA = 0.5
"""Discount factor of all probes. The first step of ``DelayedReward`` has the Q value 0.5; without bootstrapping, the
Q value would be 0."""
N_STEPS, LEARNING_STARTS, BATCH_SIZE, LEARNING_RATE = 700, 100, 16, 3e-4
NOISE, POLICY_DELAY = 0.3, 6
"""Standard deviation of the exploration noise on actions from -1 to 1, and number of critic updates per actor
update."""
LEAST_TAU = 0.05
"""Smallest tau in the probes, unless the model's tau is 0. With a smaller tau, target networks would follow too slowly
for the few updates of a probe."""
SECONDS_PER_PROBE = 36.0
"""Time limit of one probe in seconds: five probes take at most three minutes."""

Picture = NDArray[np.uint8]
Entries = dict[str, NDArray[Any]]


def picture(brightness: int) -> Picture:
    """Return a picture ``(36, 36, 1) uint8`` of a single brightness."""
    return np.full((SIZE, SIZE, 1), brightness, np.uint8)


class Probe(gym.Env[Picture, NDArray[np.float32]], ABC):
    """Show a black or a white picture, and end the episode after one action in [-1, 1].

    :ivar shows_both: whether the picture is white in half of the episodes
    :ivar tests: the part of the learner that is probably broken if a learned value or action is wrong
    """

    observation_space = spaces.Box(0, 255, (SIZE, SIZE, 1), np.uint8)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
    shows_both: ClassVar[bool] = True
    tests: ClassVar[str]
    _brightness = BLACK

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Picture, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed, options=options)
        self._brightness = BLACK
        if self.shows_both and self.np_random.random() < 0.5:
            self._brightness = WHITE
        return picture(self._brightness), {}

    def step(self, action: NDArray[np.float32]) -> tuple[Picture, float, bool, bool, dict[str, Any]]:
        """End the episode with the reward of this action."""
        return picture(self._brightness), self.reward(float(action[0])), True, False, {}

    @abstractmethod
    def reward(self, action: float) -> float:
        """Return the reward of an action."""

    @abstractmethod
    def compare(self, answer: Answer) -> dict[str, tuple[float, float]]:
        """Return each value or action that the model has learned, paired with the correct one.

        :param answer: reads the learned values and actions
        :return: pairs of learned and correct number, by name
        """


class ConstantReward(Probe):
    """Give the reward 1 for every action, to test the critic's loss and optimizer."""

    tests = "the critic's loss and its optimizer"

    def reward(self, action: float) -> float:
        """Return the reward, which is 1 for every action."""
        del action
        return 1.0

    def compare(self, answer: Answer) -> dict[str, tuple[float, float]]:
        """Return the critic's Q value for a black picture, paired with the correct value 1 (the only step's reward)."""
        return {"value": (answer.value(BLACK), 1.0)}


class PictureReward(Probe):
    """Give the reward 1 for a white picture and -1 for a black picture."""

    tests = "the critic's encoder, or the pictures in the replay buffer"

    def reward(self, action: float) -> float:
        """Return 1 if the picture is white and -1 if it is black; the action has no effect."""
        del action
        return 1.0 if self._brightness == WHITE else -1.0

    def compare(self, answer: Answer) -> dict[str, tuple[float, float]]:
        """Return the critic's Q values for the white and the black picture, paired with the correct values 1 and -1."""
        return {"value of white": (answer.value(WHITE), 1.0), "value of black": (answer.value(BLACK), -1.0)}


class ActionReward(Probe):
    """Give the highest reward for the action 0, whatever the picture is.

    If the best action were a fixed action other than 0, the actors of Stable-Baselines3 would overshoot it and end at a
    limit of the range, where tanh has no gradient.
    """

    tests = "the actor's loss, its optimizer, or the actions in the replay buffer"

    def reward(self, action: float) -> float:
        """Return 1 minus the distance of the action from 0."""
        return 1.0 - abs(action)

    def compare(self, answer: Answer) -> dict[str, tuple[float, float]]:
        """Return the actor's actions on the white and the black picture, each paired with the best action, 0."""
        return {"action on white": (answer.action(WHITE), 0.0), "action on black": (answer.action(BLACK), 0.0)}


class ActionGivenPicture(Probe):
    """Give the highest reward for the action 0.5 on a white picture and for -0.5 on a black picture."""

    tests = "the actor's encoder"

    def reward(self, action: float) -> float:
        """Return 1 minus the distance of the action from the best action, which depends on the picture."""
        return 1.0 - abs(action - (0.5 if self._brightness == WHITE else -0.5))

    def compare(self, answer: Answer) -> dict[str, tuple[float, float]]:
        """Return the actor's actions on the white and the black picture, paired with the best actions 0.5 and -0.5."""
        return {"action on white": (answer.action(WHITE), 0.5), "action on black": (answer.action(BLACK), -0.5)}


class DelayedReward(Probe):
    """Show a black picture without reward, then a white picture with the reward 1, and end the episode."""

    tests = "the targets: bootstrapping, the discount, or target networks that do not move"
    shows_both = False

    def step(self, action: NDArray[np.float32]) -> tuple[Picture, float, bool, bool, dict[str, Any]]:
        """Show the white picture at the first step, and end the episode at the second step."""
        if self._brightness == BLACK:
            self._brightness = WHITE
            return picture(WHITE), 0.0, False, False, {}
        return super().step(action)

    def reward(self, action: float) -> float:
        """Return the reward of the second step, which is 1 for every action."""
        del action
        return 1.0

    def compare(self, answer: Answer) -> dict[str, tuple[float, float]]:
        """Return the Q values for the white and the black picture, paired with the correct values 1 and ``GAMMA``."""
        return {"value of white": (answer.value(WHITE), 1.0), "value of black": (answer.value(BLACK), GAMMA)}


def in_dict(pictures: Picture) -> Entries:
    """Return pictures ``(..., 36, 36, 1)`` as a Dict observation, with a vector ``(..., 1)`` that is always 0."""
    return {"picture": pictures, "vector": np.zeros((*pictures.shape[:-3], 1), np.float32)}


class PictureAndVector(gym.ObservationWrapper[Any, NDArray[np.float32], Picture]):
    """Show a probe's picture and a constant vector, for models that observe a Dict.

    Without a vector, some settings of a policy would be refused.
    """

    def __init__(self, env: gym.Env[Picture, NDArray[np.float32]]) -> None:
        super().__init__(env)
        vector = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.observation_space = spaces.Dict({"picture": env.observation_space, "vector": vector})

    def observation(self, observation: Picture) -> Entries:
        """Return the picture and the vector."""
        return in_dict(observation)


PROBES: tuple[type[Probe], ...] = (ConstantReward, PictureReward, ActionReward, ActionGivenPicture, DelayedReward)
TOLERANCE = 0.25
"""A value or an action is correct if its error is at most this. The probes look for faults that cause errors of at
least 0.5."""


class Answer:
    """Compute the Q values and the actions of a model that was trained in a probe environment.

    :param model: the trained model
    """

    def __init__(self, model: OffPolicyAlgorithm) -> None:
        self._model = model

    def _batch_of(self, brightness: int) -> Picture | Entries:
        """Return a batch that consists of one observation of this brightness."""
        pictures = picture(brightness)[None]
        return in_dict(pictures) if isinstance(self._model.observation_space, spaces.Dict) else pictures

    def action(self, brightness: int) -> float:
        """Return the policy's action on a picture of this brightness."""
        actions, _ = self._model.predict(self._batch_of(brightness), deterministic=True)
        return float(actions[0, 0])

    @th.no_grad()
    def value(self, brightness: int) -> float:
        """Return the critics' mean Q value of the action that the policy chooses on a picture of this brightness."""
        model: Any = self._model
        tensors, _ = model.policy.obs_to_tensor(self._batch_of(brightness))
        action = th.as_tensor([[self.action(brightness)]], dtype=th.float32, device=model.device)
        values = model.critic(tensors, action)
        values = values if isinstance(values, tuple) else (values,)
        return float(sum(value.mean() for value in values) / len(values))


class _Deadline(BaseCallback):
    """End a training run at its time limit."""

    def __init__(self) -> None:
        super().__init__()
        self._end = time.thread_time() + SECONDS_PER_PROBE
        self.is_over = False

    def _on_step(self) -> bool:
        # The processor time of this thread counts, because a learner must not look broken only because the machine is
        # busy.
        self.is_over = time.thread_time() > self._end
        return not self.is_over


def probe_model(model: OffPolicyAlgorithm, probe: type[Probe]) -> OffPolicyAlgorithm:
    """Return a new, untrained model for a probe, with the class, the policy and the losses of a given model.

    Learning rate, batch size, discount and exploration have fixed values.

    :param model: the given model; it is not changed
    :param probe: class of the environment to train on
    :return: the new model
    """
    observes_dict = isinstance(model.observation_space, spaces.Dict)
    env = DummyVecEnv([lambda: PictureAndVector(probe()) if observes_dict else probe()])
    algorithm = type(model)
    given: dict[str, Any] = {
        "learning_rate": LEARNING_RATE,
        "buffer_size": N_STEPS,
        "learning_starts": LEARNING_STARTS,
        "batch_size": BATCH_SIZE,
        "gamma": GAMMA,
        "tau": max(model.tau, LEAST_TAU) if model.tau > 0 else 0.0,
        "seed": 0,
        "device": model.device,
    }
    known = inspect.signature(algorithm).parameters
    for name in ("preset", "actor_objective", "critic_loss", "random_shift", "policy_kwargs"):
        if name in known or name == "policy_kwargs":
            given[name] = getattr(model, name, None)
    if observes_dict:
        # The actor and the critics have to read the picture, which is all that changes in a probe.
        given["policy_kwargs"] = {
            key: value for key, value in given["policy_kwargs"].items() if key not in ("actor_keys", "critic_keys")
        }
    # Deterministic policies explore by noise; without noise, some answers would depend on chance.
    if "noise_schedule" in known:
        given["noise_schedule"] = NOISE
    elif hasattr(model, "target_policy_noise"):
        given["action_noise"] = NormalActionNoise(np.zeros(1), np.full(1, NOISE))
    if "policy_average" in known:
        # The answer is read from the actor itself, because an averaged policy would lag behind the actor.
        given["policy_average"] = 0.0
    if "scale_rewards" in known:
        # The correct values of a probe are known for unscaled rewards.
        given["scale_rewards"] = False
    if "ent_coef" in known:
        # The entropy bonus is part of a value. A small coefficient makes the values nearly equal to those of the
        # rewards.
        given["ent_coef"] = 0.01
    policy: Any = model.policy_class
    probed: Any = algorithm(policy, env, **given)
    # The critic has to learn the reward before the actor is trained. An actor of Stable-Baselines3 that follows an
    # untrained critic ends at a limit of its actions, where tanh has no gradient. ``policy_delay`` is set as an
    # attribute, because DDPG inherits the attribute from TD3 but has no such argument in its constructor.
    if hasattr(probed, "policy_delay"):
        probed.policy_delay = POLICY_DELAY
    return probed  # type: ignore[no-any-return]


def run_probes(
    model: OffPolicyAlgorithm,
    examination: Examination,
    progress: Progress,
    probes: Sequence[type[Probe]] = PROBES,
) -> None:
    """Train the algorithm on each probe, and compare its values and actions with the correct ones.

    :param model: a model of the algorithm; it is not changed
    :param examination: collects the results
    :param progress: function called with the name of each probe
    :param probes: the probes to train on
    """
    for probe in probes:
        name = check_id(probe)
        progress(f"the probe {probe.__name__}")
        trained = probe_model(model, probe)
        deadline = _Deadline()
        trained.learn(N_STEPS, callback=deadline)
        assert trained.env is not None
        found = probe().compare(Answer(trained))
        trained.env.close()
        wrong = {what: each for what, each in found.items() if not abs(each[0] - each[1]) <= TOLERANCE}
        value = {what: round(learned, 3) for what, (learned, _) in found.items()}
        if wrong and deadline.is_over:
            examination.skipped(name, f"not finished within {SECONDS_PER_PROBE:.0f} s")
            continue
        parts = [f"{what}: {learned:.2f} instead of {right:g}" for what, (learned, right) in wrong.items()]
        examination.judge(name, bool(wrong), f"{', '.join(parts)}. The fault may be in: {probe.tests}", value)


def check_id(probe: type[Probe]) -> str:
    """Return a probe's id, such as ``probe_constant_reward``."""
    words = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in probe.__name__)
    return f"probe{words}"
