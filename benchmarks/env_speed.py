"""How many decisions per second does the driving environment make, compared with other driving environments?

Prints a table of rates. A decision includes the rendering of the image and frame stacking. Each rate is the best of
some rounds on one core. Rates are decisions per second of processor time, not of wall-clock time, so that other
processes on the machine do not matter.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from sb3_visual_td3.envs import LITE_DRIVING_ID, register_envs
from sb3_visual_td3.envs.drivers import PurePursuitDriver

N_CARS = (0, 4, 10, 20)
Step = Callable[[], None]


def lite_step(n_cars: int, n_steps: int) -> Step:
    """Return a function that makes one decision of ``LiteDriving-v0``.

    The actions of a pure pursuit driver are recorded first, and then replayed with the same seed.
    """
    register_envs()
    env = gym.make(LITE_DRIVING_ID, n_cars=n_cars)
    driver = PurePursuitDriver()
    env.reset(seed=0)
    actions = []
    for _ in range(n_steps):
        actions.append(driver.act(env.unwrapped))  # type: ignore[arg-type]
        _, _, terminated, truncated, _ = env.step(actions[-1])
        if terminated or truncated:
            env.reset()
    count = 0

    def step() -> None:
        nonlocal count
        if count % n_steps == 0:
            env.reset(seed=0)
        _, _, terminated, truncated, _ = env.step(actions[count % n_steps])
        count += 1
        if terminated or truncated:
            env.reset()

    return step


def other_step(env_id: str, **kwargs: Any) -> Step:
    """Return a function that makes one random decision of a registered environment.

    :raises Exception: what gymnasium raises if the environment or one of its dependencies is not installed.
    """
    env = gym.make(env_id, **kwargs)
    env.action_space.seed(0)
    env.reset(seed=0)
    actions = [env.action_space.sample() for _ in range(64)]
    count = 0

    def step() -> None:
        nonlocal count
        count += 1
        _, _, terminated, truncated, _ = env.step(actions[count % len(actions)])
        if terminated or truncated:
            env.reset()

    return step


def highway_step() -> Step:
    """Return a function that makes one decision of highway-env with its grey camera stack of 4 x 84 x 84.

    racetrack-v0 is the task most similar to ours: one car steers along a road, with five decisions per second.
    """
    import highway_env  # noqa: F401  registers its environments

    camera = {
        "type": "GrayscaleObservation",
        "observation_shape": (84, 84),
        "stack_size": 4,
        "weights": [0.2989, 0.5870, 0.1140],
    }
    return other_step("racetrack-v0", config={"observation": camera})


def decisions_per_second(step: Step, n_steps: int, n_rounds: int) -> float:
    """Return the rate of the fastest round, after one round that only warms up."""
    best = 0.0
    for number in range(n_rounds + 1):
        begin = time.process_time()
        for _ in range(n_steps):
            step()
        if number:
            best = max(best, n_steps / (time.process_time() - begin))
    return best


def main() -> None:
    """Measure, print the table, and report what could not be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=4_000, help="environment steps per round in LiteDriving (default: 4000)"
    )
    parser.add_argument(
        "--other-steps", type=int, default=200, help="environment steps per round in other environments (default: 200)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds; the fastest is shown (default: 3)")
    arguments = parser.parse_args()

    rows = []
    for n_cars in N_CARS:
        rate = decisions_per_second(lite_step(n_cars, arguments.steps), arguments.steps, arguments.rounds)
        rows.append((f"{LITE_DRIVING_ID}, {n_cars} cars", rate))
    others = {"CarRacing-v3": lambda: other_step("CarRacing-v3"), "racetrack-v0, camera": highway_step}
    for name, make in others.items():
        try:
            step = make()
        except (ImportError, gym.error.Error) as error:
            print(f"{name}: not measured: {error}")
            continue
        rows.append((name, decisions_per_second(step, arguments.other_steps, arguments.rounds)))

    fastest = rows[0][1]
    print(f"{'environment':<26}{'decisions/s':>12}{'LiteDriving is faster by':>26}")
    for name, rate in rows:
        print(f"{name:<26}{rate:>12,.0f}{fastest / rate:>25.1f}x")


if __name__ == "__main__":
    main()
