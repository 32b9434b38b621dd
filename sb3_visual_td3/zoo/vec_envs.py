"""The kinds of vectorised environments that ``--vec-env`` names, and ``vec_env_kwargs`` of a hyperparameter file."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any

from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_visual_td3.common.literals import python_literal
from sb3_visual_td3.vec_env.ray_vec_env import RayVecEnv

VEC_ENVS: Mapping[str, type[VecEnv]] = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv, "ray": RayVecEnv}
"""By the name that ``--vec-env`` gives them."""
STOCK = ("dummy", "subproc")
"""Those that rl-zoo knows."""
KEY = "vec_env_kwargs"
END_ON_HELP = (
    "signals that end the training in order where a SnapshotCallback is part of it: the step is finished, a snapshot "
    "taken, exit code 75; a second signal ends it at once (default: SIGTERM SIGUSR1; none: no signal)"
)
EXIT_CODES = (
    "exit codes: 0 trained, also where a callback stopped it; 1 crashed; 2 bad usage; 4 a bug, in our code or in a "
    "callback or environment of yours; 74 the end could not be saved; 75 a signal ended it; 130 Ctrl-C. After 1, 4, "
    "74, 75 and 130 'visual-td3 resume RUN_DIR' goes on from the newest snapshot"
)


def read_kwargs(given: Any, vec_env_class: type[VecEnv], where: str) -> dict[str, Any]:
    """Look for mistakes before anything is made.

    :param given: ``vec_env_kwargs`` of a hyperparameter file: a mapping, or the text of one; or None
    :param vec_env_class: what ``--vec-env`` asks for
    :param where: what to call the block in a complaint
    :return: arguments of the class, beside the environments
    :raises ValueError: if they are none
    """
    kwargs = python_literal(given) if isinstance(given, str) else {} if given is None else given
    if not isinstance(kwargs, Mapping):
        raise ValueError(f"{where}: {KEY} is {given!r}: expected a mapping, such as {{num_gpus: 0.5}}")
    known = list(inspect.signature(vec_env_class).parameters)[1:]
    for key in kwargs:
        if key in known:
            continue
        others = [name for name, other in VEC_ENVS.items() if key in inspect.signature(other).parameters]
        close = difflib.get_close_matches(str(key), known, n=1)
        meant = f"expected one of {', '.join(known)}" if known else "it takes none"
        if close:
            meant = f"did you mean {close[0]!r}?"
        elif others:
            meant = f"it is for --vec-env {others[0]}"
        raise ValueError(f"{where}: {KEY}: {vec_env_class.__name__} has no {key!r}; {meant}")
    return dict(kwargs)
