"""Let an exported policy drive, and show the drive in a window or write it as a film.

The policy is an ONNX file that ``visual-td3 export`` has written. OpenCV computes its actions, because importing torch
would delay the first picture.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sb3_visual_td3.common.display import has_display
from sb3_visual_td3.common.errors import UsageError, check_output
from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.envs import CARLA_DRIVING_ID, LITE_DRIVING_ID
from sb3_visual_td3.envs.driving_env import Observation
from sb3_visual_td3.envs.human_view import Window
from sb3_visual_td3.runs.durable_files import atomic_write

OBSERVATION_SHAPE = (4, 84, 84)
"""Shape of the observations of the policy that comes with this package: four grey frames, the newest last."""
FILM_SUFFIXES = (".gif", ".mp4")
_INSET_PX = 168
"""Height and width of the small picture in the corner, which shows what the policy sees."""
_GIF_WIDTH, _GIF_HEIGHT = 400, 300
_STEPS_PER_GIF_PICTURE = 2
_N_COLOURS = 64

Picture = NDArray[np.uint8]


class ExportedPolicy:
    """Compute the actions of a policy that ``visual-td3 export`` has written as an ONNX file.

    :param path: path of the file
    :raises UsageError: if OpenCV cannot read it
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"--policy {path}: there is no such file; 'visual-td3 export' writes one")
        try:
            self._network: Any = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise UsageError(
                f"--policy {path}: OpenCV {cv2.__version__} cannot read it as an ONNX file; use a file that "
                "'visual-td3 export' has written"
            ) from error
        self._path = path

    def predict(self, observation: Observation) -> NDArray[np.float32]:
        """Return the action for an observation.

        :param observation: ``(channels, height, width) uint8``; or a dict that has each input of the policy by its name
        :return: ``(2,) float32``: steer and pedal
        :raises UsageError: if the policy was trained on other observations
        """
        # A policy for plain images has a single input, which needs no name.
        inputs = observation if isinstance(observation, dict) else {"": observation}
        try:
            for name, part in inputs.items():
                self._set_input(name, part[None])
            actions: NDArray[np.float32] = self._network.forward()
        except cv2.error as error:
            shapes = ", ".join(f"{name} {part.shape}".lstrip() for name, part in inputs.items())
            raise UsageError(
                f"the policy {self._path.name} cannot take an observation of shape {shapes}: expected the "
                "observations that it was trained on. Change --env-kwargs, or export a policy for these observations"
            ) from error
        return actions.reshape(-1)

    def _set_input(self, name: str, batch: NDArray[Any]) -> None:
        try:
            self._network.setInput(batch, name)
        except cv2.error as error:
            # The policy need not read all parts of an observation: see actor_keys in policy_kwargs.
            if error.code != cv2.Error.StsObjectNotFound:
                raise


def run(settings: argparse.Namespace) -> int:
    """Let the policy drive, and show the drive in a window or write it as a film.

    :param settings: the parsed arguments
    :return: the exit code
    """
    env = make_env(settings)
    try:
        film = _film_path(settings)
        with as_file(files(__package__) / "policy.onnx") as ours:
            policy = ExportedPolicy(settings.policy or Path(ours))
        # Not the metadata's render_fps, which is rounded.
        step_s: float = env.get_wrapper_attr("settings").step_s
        n_steps = max(1, round(settings.seconds / step_s))
        pictures = drive(env, policy, n_steps, settings.seed)
        if film is None:
            _show(pictures, 1.0 / step_s)
        else:
            write_film(pictures, film, 1.0 / step_s)
            print(f"The film is in {film.resolve()}")
    finally:
        env.close()
    return 0


def _film_path(settings: argparse.Namespace) -> Path | None:
    """Decide between a film and a window, and print the decision unless the user has asked for a film.

    :return: path of the film; None for a window
    """
    film: Path = settings.output or Path("demo.gif")
    if film.suffix not in FILM_SUFFIXES:
        raise UsageError(f"--output {film}: expected a name that ends in {' or '.join(FILM_SUFFIXES)}")
    check_output("--output", film)
    if settings.record or settings.output is not None:
        return film
    if not has_display():
        print(f"No display: {settings.seconds} s of driving are filmed.")
        return film
    if find_spec("pygame") is None:
        print(
            f"A window needs pygame ({install_command('video')}): {settings.seconds} s of driving are filmed instead."
        )
        return film
    print("Close the window, or press Ctrl-C, to end the drive.")
    return None


def make_env(settings: argparse.Namespace) -> gym.Env[Any, Any]:
    """Make the environment of the demo: CARLA, or roads on which the policy was not trained.

    :param settings: the parsed arguments
    :raises UsageError: if ``--env-kwargs`` has an unknown argument, or the demo's policy does not fit the observations
    """
    kwargs: dict[str, Any] = {"render_mode": "rgb_array", "render_view": "chase"}
    if settings.carla is None:
        env_id = LITE_DRIVING_ID
        kwargs["maps"] = "held_out"
    else:
        env_id = CARLA_DRIVING_ID
        kwargs |= {"host": settings.carla[0], "port": settings.carla[1]}
    kwargs |= route_kwargs(settings.route)
    kwargs |= settings.env_kwargs
    try:
        env = gym.make(env_id, **kwargs)
    except TypeError as error:  # an argument that the environment does not have
        reason = str(error).partition(" was raised from")[0]  # gymnasium appends all arguments
        raise UsageError(f"--env-kwargs: {reason}") from error
    if settings.policy is None and env.observation_space.shape != OBSERVATION_SHAPE:
        env.close()
        raise UsageError(
            f"with these --env-kwargs the observations are {env.observation_space}: expected four grey frames of 84 "
            "x 84 pixels for the demo's policy. Change --env-kwargs, or use a policy of your own with --policy FILE"
        )
    return env


def route_kwargs(route: str | None) -> Mapping[str, Any]:
    """Return the arguments of the environment for ``--route``.

    :param route: ``"loop"``, ``"random"``, the path of a route file, or None for the environment's default
    """
    if route is None:
        return {}
    if route.endswith(".xml"):
        return {"route": "file", "route_file": route}
    return {"route": route}


def drive(env: gym.Env[Any, Any], policy: ExportedPolicy, n_steps: int, seed: int) -> Iterator[Picture]:
    """Drive episode after episode, print a line for each, and yield a picture for each step.

    :param env: a driving environment that renders pictures
    :param policy: the policy that drives
    :param n_steps: number of steps
    :param seed: seed of the first episode
    :return: pictures ``(480, 640, 3) uint8``
    """
    step_s = env.get_wrapper_attr("settings").step_s
    observation, info = env.reset(seed=seed)
    began = 0
    for step in range(1, n_steps + 1):
        observation, _, terminated, truncated, info = env.step(policy.predict(observation))
        camera = observation["camera"] if isinstance(observation, dict) else observation
        yield with_inset(np.asarray(env.render()), camera[-1])
        is_over = terminated or truncated
        if not is_over and step < n_steps:
            continue
        driven_s = (step - began) * step_s
        ending = info["termination"] or ("end of the episode" if is_over else "end of the demo")
        print(f"{info['map']}: {info['distance_m']:.0f} m in {driven_s:.0f} s, {ending}")
        if step < n_steps:
            observation, info = env.reset()
            began = step


def with_inset(picture: Picture, seen: Picture) -> Picture:
    """Draw the policy's newest frame into the lower left corner of a picture.

    :param picture: ``(height, width, 3) uint8``; it is changed
    :param seen: ``(height, width) uint8``
    :return: the same picture
    """
    small = cv2.resize(seen, (_INSET_PX, _INSET_PX), interpolation=cv2.INTER_NEAREST)
    picture[-_INSET_PX - 8 : -8, 8 : 8 + _INSET_PX] = small[..., None]
    cv2.rectangle(
        picture, (8, picture.shape[0] - 9 - _INSET_PX), (8 + _INSET_PX, picture.shape[0] - 8), (255, 255, 255)
    )
    return picture


def _show(pictures: Iterator[Picture], fps: float) -> None:
    """Show the pictures in a window, in real time, until it is closed."""
    window = Window("visual-td3 demo")
    try:
        for picture in pictures:
            window.show(picture, fps)
            if window.is_closed_by_user():
                return
    finally:
        window.close()


def write_film(pictures: Iterator[Picture], path: Path, fps: float) -> None:
    """Write the pictures as a film that plays in real time.

    :param pictures: one picture ``(height, width, 3) uint8`` for each step
    :param path: path of the film, which ends in ``.gif`` or ``.mp4``
    :param fps: number of steps per second
    :raises UsageError: if OpenCV cannot write an mp4 file
    """
    write: Callable[[Iterator[Picture], Path, float], None] = _write_gif if path.suffix == ".gif" else _write_mp4
    with atomic_write(path) as temporary:
        write(pictures, temporary, fps)


def _write_gif(pictures: Iterator[Picture], path: Path, fps: float) -> None:
    frames = []
    palette = None
    for number, picture in enumerate(pictures):
        if number % _STEPS_PER_GIF_PICTURE:
            continue
        small = cv2.resize(picture, (_GIF_WIDTH, _GIF_HEIGHT), interpolation=cv2.INTER_AREA)
        image = Image.fromarray(small)
        # One palette for all pictures: their unchanged pixels then stay equal, which keeps the file small.
        if palette is None:
            palette = image.quantize(_N_COLOURS)
        frames.append(image.quantize(palette=palette, dither=Image.Dither.NONE))
    duration_ms = round(1_000 * _STEPS_PER_GIF_PICTURE / fps)
    frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=duration_ms, loop=0)


def _write_mp4(pictures: Iterator[Picture], path: Path, fps: float) -> None:
    writer: Any = None
    try:
        for picture in pictures:
            if writer is None:
                size = (picture.shape[1], picture.shape[0])
                writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), fps, size)
                if not writer.isOpened():
                    raise UsageError(f"OpenCV {cv2.__version__} cannot write mp4 files here; use -o demo.gif instead")
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    finally:
        if writer is not None:
            writer.release()
