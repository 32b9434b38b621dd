"""Can the network of VisualTD3 learn to drive routes if it imitates a driver?

The network sees the camera image and the navigation command. Behaviour cloning: pure pursuit drives the training
districts, and the actor with its encoder learns the driver's actions from the observations of the policy. Rewards are
not used. The result helps to find the cause when reinforcement learning fails on the routes. If cloning fails too, the
camera does not show the way, or the network does not use the command. If cloning succeeds, the cause is that
reinforcement learning does not find the turns.

Again and again, a push adds a random offset to the driver's action for a few steps. The pushes move the car off its
line, so that the network also sees how to return to the line. The network learns the action without the offset
(Codevilla et al. 2018, "End-to-end driving via conditional imitation learning", section 5).

    python benchmarks/route_cloning.py                 # seed 0: the default settings
    python benchmarks/route_cloning.py --table         # print the results and run nothing

The evaluation drives the routes of route_learning.py, with the correct commands and with shuffled ones.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import result_rows
import route_learning
import torch as th
from torch.nn import functional as F

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.callbacks.drives import mean_of
from sb3_visual_td3.envs.drivers import PurePursuitDriver

RESULTS = Path(__file__).parent / "results" / "route_cloning.csv"
_ARM = route_learning.arms(None)["visual"]
BATCH_SIZE = 128
LEARNING_RATE = 5e-4
PUSH_STD = (0.5, 0.4)
"""Standard deviations of a push, the random offset that is added to steering and pedal."""
PUSH_STEPS, PAUSE_STEPS = (3, 9), (8, 25)
"""Ranges of the number of steps that a push lasts, and of the number of steps between two pushes; the upper ends are
excluded."""
COLUMNS = (
    "seed",
    "samples",
    "updates",
    "error",
    "episodes",
    "success",
    "success shuffled",
    "route completion",
    "driving score",
    "driving score shuffled",
    "speed m/s",
    "minutes",
)


def collect(n_samples: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Let pure pursuit drive, and return what a policy would have seen and what the driver did.

    :return: observations by key, ``(n_samples, ...)`` each, and actions ``(n_samples, 2)``
    """
    env = gym.make(route_learning.ENV, maps="train", **route_learning.observed(_ARM.arm))
    driver, rng = PurePursuitDriver(), np.random.default_rng(seed)
    assert isinstance(env.observation_space, gym.spaces.Dict)
    observations = {
        key: np.zeros((n_samples, *space.shape), space.dtype)  # type: ignore[misc]
        for key, space in env.observation_space.spaces.items()
    }
    actions = np.zeros((n_samples, 2), np.float32)
    observation, _ = env.reset(seed=seed)
    push, is_pushing, n_left = np.zeros(2), True, 0
    for sample in range(n_samples):
        if n_left == 0:
            is_pushing = not is_pushing
            push = rng.normal(0.0, PUSH_STD) if is_pushing else np.zeros(2)
            n_left = int(rng.integers(*(PUSH_STEPS if is_pushing else PAUSE_STEPS)))
        n_left -= 1
        actions[sample] = driver.act(env.unwrapped)  # type: ignore[arg-type]
        for key, values in observation.items():
            observations[key][sample] = values
        pushed = np.clip(actions[sample] + push, -1.0, 1.0).astype(np.float32)
        observation, _, terminated, truncated, _ = env.step(pushed)
        if terminated or truncated:
            observation, _ = env.reset()
    env.close()
    return observations, actions


def clone(model: VisualTD3, observations: dict[str, np.ndarray], actions: np.ndarray, n_updates: int) -> float:
    """Fit the actor with its encoder to the actions.

    :return: the mean squared error of the last tenth of the updates
    """
    policy = model.policy
    optimizer = th.optim.Adam(policy.actor.parameters(), LEARNING_RATE)
    rng = np.random.default_rng(model.seed)
    errors = []
    policy.set_training_mode(True)
    for update in range(n_updates):
        optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1.0 - update / n_updates)
        chosen = rng.integers(len(actions), size=BATCH_SIZE)
        batch = {key: th.as_tensor(values[chosen]) for key, values in observations.items()}
        predicted = policy.actor(batch)
        loss = F.mse_loss(predicted, th.as_tensor(actions[chosen]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        errors.append(loss.item())
    policy.set_training_mode(False)
    return float(np.mean(errors[-max(1, n_updates // 10) :]))


def run(seed: int, n_samples: int, n_updates: int) -> result_rows.Row:
    """Return the row of one run."""
    begin = time.perf_counter()
    observations, actions = collect(n_samples, seed)
    model: Any = route_learning.learner(_ARM, seed)
    error = clone(model, observations, actions, n_updates)
    minutes = (time.perf_counter() - begin) / 60.0

    def driver(observations: Any, _starts: np.ndarray) -> np.ndarray:
        # Cloning does not update the averaged actor, which ``predict`` would use.
        with model.policy.without_average():
            actions: np.ndarray = model.predict(observations, deterministic=True)[0]
        return actions

    seen = route_learning.observed(_ARM.arm)
    drives = route_learning.examine(driver, _ARM.test_maps, seen)
    told = mean_of(drives)
    misled = mean_of(route_learning.examine(route_learning.ShuffledCommands(driver, seed), _ARM.test_maps, seen))
    return {
        "seed": seed,
        "samples": n_samples,
        "updates": n_updates,
        "error": round(error, 4),
        "episodes": len(drives),
        "success": round(told.success_rate, 3),
        "success shuffled": round(misled.success_rate, 3),
        "route completion": round(told.route_completion, 3),
        "driving score": round(told.driving_score, 1),
        "driving score shuffled": round(misled.driving_score, 1),
        "speed m/s": round(told.speed_mps, 2),
        "minutes": round(minutes, 1),
    }


def main() -> None:
    """Run the seeds that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="clone once with each of these seeds (default: seed 0)"
    )
    parser.add_argument("--samples", type=int, default=12_000, help="steps of pure pursuit (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=1_500, help="updates of the network (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=RESULTS, help="file of the results (default: %(default)s)")
    parser.add_argument("--table", action="store_true", help="print the table and run nothing")
    settings = parser.parse_args()
    th.set_num_threads(1)
    done = {(row["seed"], row["samples"], row["updates"]) for row in result_rows.read(settings.output)}
    for seed in settings.seeds:
        if not settings.table and (seed, settings.samples, settings.updates) not in done:
            result_rows.add(run(seed, settings.samples, settings.updates), settings.output, COLUMNS)
    print(route_learning.table(result_rows.read(settings.output), COLUMNS))


if __name__ == "__main__":
    main()
