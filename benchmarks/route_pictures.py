"""Draw the three pictures of docs/routes.md.

The first picture shows a route on its map. The second shows three junctions, one for each navigation command (left,
straight, right). The third shows a junction with other cars.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

import sb3_visual_td3  # noqa: F401 - registers the environments
from sb3_visual_td3.envs.drivers import PurePursuitDriver
from sb3_visual_td3.envs.driving_env import DrivingEnv
from sb3_visual_td3.envs.road.route_maps import load_route_map

MAP = "streets_held_out_0"
LEVEL = 3
"""Level of the ground raster in which the map is drawn: a pixel is 0.8 m."""
COMMANDS = ("left", "straight", "right")
DISTANCE_M = 12.0
"""A view is taken when the junction is nearer than this distance."""
N_SEARCHED = 6
"""Number of routes on which a junction with many cars is looked for."""
Picture = NDArray[np.uint8]


def route_picture(number: int) -> Picture:
    """Return the map from above with a route from its start (green) to its goal (red), ``(h, w, 3) uint8``, BGR."""
    env = gym.make("LiteDriving-v0", maps=[MAP], route="random", route_turns=(3, 8), observation="camera+command")
    _, info = env.reset(seed=0, options={"route": number})
    world = env.unwrapped
    assert isinstance(world, DrivingEnv)
    ground = load_route_map(MAP).ground
    picture = cv2.cvtColor(ground.levels[LEVEL], cv2.COLOR_GRAY2BGR)
    along_m = np.arange(0.0, info["route_length_m"], 2.0).tolist()
    places = np.array([[x_m, y_m, 1.0] for x_m, y_m in world.waypoints_m(along_m)])
    texels = (places @ ground.from_world(LEVEL).T)[:, :2].round().astype(np.int32)
    cv2.polylines(picture, [texels], False, (255, 120, 0), 3, cv2.LINE_AA)
    cv2.circle(picture, texels[0].tolist(), 7, (0, 180, 0), cv2.FILLED, cv2.LINE_AA)
    cv2.circle(picture, texels[-1].tolist(), 7, (0, 0, 220), cv2.FILLED, cv2.LINE_AA)
    env.close()
    return np.asarray(picture[::-1], dtype=np.uint8)  # rows count along y, which points up


def junction_pictures() -> list[Picture]:
    """Return three chase views, each taken shortly before a junction.

    :return: one picture for each command in ``COMMANDS``, each ``(240, 320, 3) uint8``, BGR
    """
    env = gym.make(
        "LiteDriving-v0",
        maps=[MAP],
        route="random",
        observation="camera+command",
        render_mode="rgb_array",
        render_view="chase",
    )
    world, driver = env.unwrapped, PurePursuitDriver()
    assert isinstance(world, DrivingEnv)
    found: dict[str, Picture] = {}
    number = 0
    while len(found) < len(COMMANDS):
        env.reset(seed=number, options={"route": number})
        number += 1
        is_over = False
        while not is_over:
            _, _, terminated, truncated, info = env.step(driver.act(world))
            is_over = terminated or truncated
            command, is_near = info["command"], 0.0 < info["command_distance_m"] < DISTANCE_M
            if is_near and command in COMMANDS and command not in found:
                rendered: Any = env.render()
                small = cv2.resize(rendered[..., ::-1], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
                found[command] = np.asarray(small, dtype=np.uint8)
    env.close()
    return [found[command] for command in COMMANDS]


def traffic_picture() -> Picture:
    """Return a chase view of a junction with many other cars, ``(480, 640, 3) uint8``, BGR."""
    env = gym.make(
        "LiteRoutes-v0",
        maps=[MAP],
        n_cars=20,
        traffic_lights=True,
        render_mode="rgb_array",
        render_view="chase",
    )
    world, driver = env.unwrapped, PurePursuitDriver()
    assert isinstance(world, DrivingEnv)
    best: tuple[int, Picture] = (0, np.zeros((480, 640, 3), np.uint8))
    for number in range(N_SEARCHED):
        env.reset(seed=number, options={"route": number})
        is_over = False
        while not is_over:
            _, _, terminated, truncated, info = env.step(driver.act(world))
            is_over = terminated or truncated
            vehicle = world.vehicle
            if 0.0 < info["command_distance_m"] < DISTANCE_M and vehicle.vehicle_ahead_m > DISTANCE_M:
                # Count the cars in the view that are ahead of the vehicle and near enough to be seen well.
                n_near = 0
                for car in world._backend.cars:  # type: ignore[attr-defined]
                    dx_m, dy_m = car.x_m - vehicle.x_m, car.y_m - vehicle.y_m
                    ahead_m = dx_m * np.cos(vehicle.yaw_rad) + dy_m * np.sin(vehicle.yaw_rad)
                    n_near += 5.0 < ahead_m < 30.0 and np.hypot(dx_m, dy_m) < 1.2 * ahead_m
                if n_near > best[0]:
                    rendered: Any = env.render()
                    best = (n_near, np.ascontiguousarray(rendered[..., ::-1]))
    env.close()
    return best[1]


def main() -> None:
    """Draw all pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("docs/images"), help="folder of the pictures")
    parser.add_argument("--route", type=int, default=1, help="number of the route on the map (default: %(default)s)")
    settings = parser.parse_args()
    pictures = {
        "route_map.png": route_picture(settings.route),
        "route_commands.png": np.hstack(junction_pictures()),
        "route_traffic.png": traffic_picture(),
    }
    for name, picture in pictures.items():
        cv2.imwrite(str(settings.folder / name), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
        print(settings.folder / name)


if __name__ == "__main__":
    main()
