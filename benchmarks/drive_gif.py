"""Film a policy that drives on a road it was not trained on, together with its camera image.

python benchmarks/learning_study.py --seeds 1 --output logs/learning.json
python benchmarks/drive_gif.py logs/learning/empty_road/visual/1/best_model.zip --seed 3
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from PIL import Image
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_visual_td3 import VisualTD3

SIZE, INSET = 288, 84
"""Height of the film and of the agent's picture in its corner, in pixels."""
STEPS_PER_PICTURE = 3
N_COLOURS = 48


def pictures(model: BaseAlgorithm, env: gym.Env[Any, Any], seed: int) -> list[np.ndarray]:
    """Drive an episode, print the distance, and return its pictures ``(SIZE, SIZE, 3) uint8``."""
    observation, info = env.reset(seed=seed)
    film, n_steps, is_over = [], 0, False
    while not is_over:
        if n_steps % STEPS_PER_PICTURE == 0:
            film.append(_picture(env, observation))
        observation, _, terminated, truncated, info = env.step(model.predict(observation, deterministic=True)[0])
        n_steps, is_over = n_steps + 1, terminated or truncated
    print(f"{info['distance_m']:.0f} m in {n_steps} decisions, {info['termination'] or 'driven to the end'}")
    return film


def _picture(env: gym.Env[Any, Any], observation: np.ndarray) -> np.ndarray:
    rendered: Any = env.render()
    picture = cv2.resize(rendered, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    seen = cv2.resize(observation[-1], (INSET, INSET), interpolation=cv2.INTER_NEAREST)
    below = 36  # rows of the overlay with speed and position
    picture[below : below + INSET, 4 : 4 + INSET] = seen[..., None]
    cv2.rectangle(picture, (3, below - 1), (4 + INSET, below + INSET), (255, 255, 255), 1)
    return picture


def write(film: list[np.ndarray], path: Path, seconds_per_picture: float) -> None:
    """Write the pictures as a GIF, with one palette taken from the first ones."""
    palette = Image.fromarray(np.concatenate(film[:: max(1, len(film) // 4)])).quantize(N_COLOURS)
    frames = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in film]
    path.parent.mkdir(parents=True, exist_ok=True)
    duration_ms = round(1_000 * seconds_per_picture)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration_ms, loop=0, optimize=True)


def main() -> None:
    """Drive an episode, film it and write the GIF."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="zip file of a saved VisualTD3 model")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/images/driving.gif"))
    parser.add_argument("--map", default="held_out_0", help="map to drive on (default: held_out_0)")
    parser.add_argument("--n-cars", type=int, default=0, help="number of other cars (default: 0)")
    parser.add_argument("--n-steps", type=int, default=240, help="environment steps, 10 per second (default: 240)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the starting place (default: 0)")
    settings = parser.parse_args()
    env = gym.make(
        "LiteDriving-v0",
        maps=[settings.map],
        n_cars=settings.n_cars,
        render_mode="rgb_array",
        render_view="chase",
        max_episode_steps=settings.n_steps,
    )
    film = pictures(VisualTD3.load(settings.model, device="cpu"), env, settings.seed)
    write(film, settings.output, STEPS_PER_PICTURE * 0.1)
    print(f"{settings.output}: {len(film)} pictures, {settings.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
