"""Draw a grid of frames of LiteDriving-v0, grey and in colour, for the README."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.envs.road.maps import load_map
from sb3_visual_td3.envs.road.track import Track
from sb3_visual_td3.envs.road.traffic import lane_lines

SCALE = 3
CARS = ((0, 10.0, 0), (1, 22.0, 2), (0, 30.0, 3))
"""The other cars: lane, distance ahead in metres, and colour (an index into ``PAINTS`` of ``car_painter``)."""


class Scene(NamedTuple):
    """One column of the grid."""

    title: str
    map_name: str
    place: str
    cars: tuple[tuple[int, float, int], ...] = ()
    weather: str = "clear"


SCENES = (
    Scene("straight", "train_0", "straight"),
    Scene("bend", "train_0", "bend"),
    Scene("junction", "junction_0", "junction"),
    Scene("car ahead", "train_0", "straight", CARS),
    Scene("rain", "train_0", "straight", CARS, "rain"),
    Scene("night", "train_0", "straight", CARS, "night"),
)


def index_of(place: str, track: Track) -> int:
    """Return the index of a lane point from which the camera sees the given kind of place ahead.

    :param place: ``"junction"`` (10 m ahead), ``"straight"`` (the least curved 30 m of the lane), or ``"bend"`` (the
        most curved 30 m)
    :param track: the lane, as a loop of points
    """
    if place == "junction":
        return int(np.flatnonzero(track.in_junction)[0] - round(10.0 / track.spacing_m)) % len(track.points_m)
    # The mean curvature of the 30 m ahead of each point; the track is a loop.
    window = round(30.0 / track.spacing_m)
    bends = np.abs(track.curvatures_per_m)
    ahead = np.convolve(np.concatenate([bends, bends[:window]]), np.ones(window), "valid")[: len(bends)]
    if place == "straight":
        return int(ahead.argmin())
    return int(ahead.argmax())


def frame_of(scene: Scene, grayscale: bool) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return the newest camera frame at a point, enlarged, ``(h, w, 3) uint8``, BGR."""
    env = LiteDrivingEnv(
        maps=scene.map_name, frame_stack=1, n_cars=len(scene.cars), weather=scene.weather, grayscale=grayscale
    )
    env.reset(seed=3)
    track = load_map(scene.map_name).track
    index = index_of(scene.place, track)
    x_m, y_m, heading_rad = track.pose_at(index, 0.0)
    state = env.get_state()
    state["world"]["motion"] = [x_m, y_m, heading_rad, 0.0, 0.0]
    state["world"]["lane"] = list(track.locate(x_m, y_m, index))
    lines = lane_lines(track)
    cars = []
    for lane, ahead_m, paint in scene.cars:
        line = lines[lane]
        along_m = line.along_at(index) + (ahead_m if lane == 0 else -ahead_m)
        cars.append([lane, along_m % line.length_m, 5.0, 6.0, paint])
    state["world"]["cars"] = cars
    env.set_state(state)
    observation, *_ = env.step(np.zeros(2, np.float32))
    assert isinstance(observation, np.ndarray)
    if grayscale:
        picture = cv2.cvtColor(observation[0], cv2.COLOR_GRAY2BGR)
    else:
        picture = observation.transpose(1, 2, 0)[..., ::-1]  # RGB (3, h, w) to BGR (h, w, 3)
    # Nearest neighbour: the reader should see the pixels that the policy sees.
    colour = cv2.resize(np.ascontiguousarray(picture), None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_NEAREST)
    cv2.rectangle(colour, (0, 0), (12 + 9 * len(scene.title), 22), (0, 0, 0), cv2.FILLED)
    cv2.putText(colour, scene.title, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
    return np.asarray(colour, dtype=np.uint8)


def main() -> None:
    """Draw the grid."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "output",
        nargs="?",
        type=Path,
        default=Path("docs/images/frames.png"),
        help="picture to write (default: %(default)s)",
    )
    output = parser.parse_args().output
    rows = [np.hstack([frame_of(scene, grayscale) for scene in SCENES]) for grayscale in (True, False)]
    cv2.imwrite(str(output), np.vstack(rows), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(output)


if __name__ == "__main__":
    main()
