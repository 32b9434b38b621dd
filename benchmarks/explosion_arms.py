"""Define the arms of the explosion study.

The arms use the settings of the CARLA run that started this project. An arm has the faulty actor loss of that run or
the correct one. Each of the three cures is on or off.
"""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
from faulty_trainings import LeakyTD3, Training
from gymnasium.wrappers import GrayscaleObservation, ResizeObservation, TransformReward

N_STEPS, LEARNING_STARTS = 5_000, 1_000
REWARD_SCALE = 15.0
"""Factor on the rewards of LiteDriving-v0. Before this factor, a good step earns about 1; a good step of the original
CARLA run earned 10 to 20."""
RACING_REWARD_SCALE = 5.0
"""Factor on the rewards of CarRacing-v3. Before this factor, a new tile of the track earns about 3.3."""
COMMON = {"batch_size": 64, "buffer_size": 6_000, "learning_starts": LEARNING_STARTS}
FIRST_RUN = {
    "preset": "td3",
    "learning_rate": 1e-4,
    "noise_schedule": "lin_0.3_0.2",
    "tau": 0.005,
    "gamma": 0.99,
    **COMMON,
}
RECOMMENDED = {"learning_rate": "lin_2e-4", "n_steps": 3, "tau": 0.01, **COMMON}
LOSSES = {"leak": LeakyTD3, "correct": None}
CLIPS: dict[str, dict[str, Any]] = {"no clip": {}, "clip 1": {"max_grad_norm": {"actor": 1.0}}}
RATES = {"cnn 1e-5": 1e-5, "cnn 1e-4": 1e-4}
REWARDS = {"raw": False, "normalised": True}


def racing_view(env: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
    """Return CarRacing-v3 as the policy sees it: 84 x 84, grey, with rewards on the scale of the study."""
    small = GrayscaleObservation(ResizeObservation(env, (84, 84)), keep_dim=True)
    return TransformReward(small, lambda reward: RACING_REWARD_SCALE * float(reward))


RACING: dict[str, Any] = {"env": "CarRacing-v3", "wrapper": racing_view, "frame_stack": 4}
DRIVING: dict[str, Any] = {"env_kwargs": {"reward": "progress_heavy", "reward_scale": REWARD_SCALE}}


def _arm(world: dict[str, Any], loss: str, clip: str, rate: str, reward: str) -> Training:
    algorithm = {} if LOSSES[loss] is None else {"algorithm": LOSSES[loss]}
    return Training(
        "an arm of the explosion study",
        settings={**FIRST_RUN, **CLIPS[clip], "actor_cnn_lr": RATES[rate]},
        normalize_reward=REWARDS[reward],
        n_timesteps=N_STEPS,
        image_size=None,
        **world,
        **algorithm,  # type: ignore[arg-type]
    )


def _visual(**world: Any) -> Training:
    return Training(
        "the preset, with the zoo's learning rate and exploration",
        settings=RECOMMENDED,
        n_timesteps=N_STEPS,
        image_size=None,
        **world,
    )


RACING_SLICE = (
    ("leak", "no clip", "cnn 1e-5", "raw"),
    ("leak", "clip 1", "cnn 1e-4", "raw"),
    ("leak", "clip 1", "cnn 1e-4", "normalised"),
    ("correct", "no clip", "cnn 1e-5", "raw"),
)
"""The four arms that also run on CarRacing-v3, in addition to the preset.

The report on the original run recommends three cures: clipping, a learning rate of 1e-4 for the actor's encoder, and
normalised rewards. The arms have, in this order: the original settings; the first two cures; all three cures; the
original settings with the correct actor loss.
"""
ARMS = {
    **{", ".join(names): _arm(DRIVING, *names) for names in itertools.product(LOSSES, CLIPS, RATES, REWARDS)},
    "visual": _visual(env_kwargs={"reward_scale": REWARD_SCALE}),
    **{f"CarRacing-v3: {', '.join(names)}": _arm(RACING, *names) for names in RACING_SLICE},
    "CarRacing-v3: visual": _visual(**RACING),
}
