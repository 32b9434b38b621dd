"""Work that needs no learner beside it, such as whole trainings, as Ray tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cloudpickle

from sb3_visual_td3.vec_env.env_actor import Home, pack
from sb3_visual_td3.vec_env.ray_session import RaySession

MAX_RETRIES = 2
"""How often a task is begun anew because its process or its machine has died."""


def run_tasks(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    address: str | None = None,
) -> Iterator[tuple[int, Any]]:
    """Call a function once for each of several arguments, as many at a time as there is room for.

    Each call has a process of its own, in the folder of this one where there is such a folder.

    :param function: can be imported, or is pickled by value
    :param arguments: of each call
    :param num_cpus: processors that each call is given
    :param num_gpus: share of a GPU that each is given
    :param address: of the cluster, see :class:`RaySession`
    :return: as they end, the number of each call and what it returned, or the exception with which it ended
    :raises ImportError: if Ray is not installed
    :raises ValueError: if there is no cluster at the address, or it has no room for one call
    """
    session = RaySession(address)
    try:
        _check_room(session.ray, {"CPU": num_cpus, "GPU": num_gpus})
        options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": MAX_RETRIES, "max_calls": 1}
        task, home = session.ray.remote(**options)(_call), Home.of_this_process()
        yield from _as_they_end(session.ray, [task.remote(home, pack((function, each))) for each in arguments])
    finally:
        session.close()


def _check_room(ray: Any, needs: Mapping[str, float]) -> None:
    total = ray.cluster_resources()
    for name, amount in needs.items():
        if amount > total.get(name, 0.0):
            raise ValueError(f"each run is to have {name} {amount:g}, and all machines have {total.get(name, 0):g}")


def _as_they_end(ray: Any, tasks: list[Any]) -> Iterator[tuple[int, Any]]:
    pending = {task: index for index, task in enumerate(tasks)}
    tasks.clear()
    try:
        while pending:
            (ended,), _ = ray.wait(list(pending), num_returns=1)
            index = pending.pop(ended)
            try:
                result = ray.get(ended)
            except ray.exceptions.RayTaskError as error:
                result = getattr(error, "cause", None) or error
            except ray.exceptions.RayError as error:
                result = error
            yield index, result
    finally:
        for left in pending:
            ray.cancel(left, force=True)


def _call(home: Home, packed: bytes) -> Any:
    home.move_in()
    function, arguments = cloudpickle.loads(packed)
    return function(*arguments)
