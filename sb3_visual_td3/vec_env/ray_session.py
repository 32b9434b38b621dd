"""Connect to Ray: join a running cluster or start a local one, and run functions as Ray tasks.

Only the process that started Ray shuts it down.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cloudpickle

from sb3_visual_td3.common.installation import install_command
from sb3_visual_td3.vec_env.env_actor import SearchPaths, pack

OBJECT_STORE_BYTES = 256 * 2**20
"""Size of Ray's object store in bytes, if this process starts Ray. By default Ray would use a third of the memory."""
MAX_TASK_RETRIES = 2
"""How often Ray restarts a task whose process or machine has died."""
_PROBE_TIMEOUT_S = 10.0
"""How long to wait for a server at a cluster's address, in seconds."""
_LOOPBACK_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Environment variable of Ray. If it is 0, Ray listens only on the loopback address. If it is 1, Ray listens on the
machine's external address."""


def need_ray() -> Any:
    """Import Ray, which is an optional dependency.

    :return: the module ``ray``
    :raises ImportError: if Ray is not installed
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # by default Ray sends usage statistics to its developers
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"Ray cannot be imported ({error}), but RayVecEnv and 'visual-td3 sweep' need it: {install_command('ray')}"
        ) from error
    return ray


class RaySession:
    """Keep this process connected to Ray until :meth:`close` is called.

    If this process is already connected to Ray, the session uses that connection. Otherwise the session joins the
    cluster at ``address``. Without ``address``, the environment variable ``RAY_ADDRESS`` gives the address. If this
    variable is not set either, the session starts Ray for this machine only.

    When the last session of this process is closed, the process disconnects from Ray, and Ray is shut down if a session
    started it. A connection that the user opened by ``ray.init()`` stays open.

    :param address: ``"auto"`` (a Ray that runs on this machine), ``"10.0.0.1:6379"``, ``"ray://10.0.0.1:10001"``, or
        ``None``
    :raises ImportError: if Ray is not installed
    :raises ValueError: if no Ray can be joined at the address
    """

    # Ray has one connection per process, so all sessions share these attributes: the number of open sessions, and
    # whether a session opened the connection and started Ray.
    _n_open = 0
    _is_connected_by_us = False
    _is_started_by_us = False

    def __init__(self, address: str | None = None) -> None:
        self.ray = need_ray()
        self._is_open = False
        if not self.ray.is_initialized():
            address = address or os.environ.get("RAY_ADDRESS")
            is_own = address in {None, "local"}
            if is_own:
                _start(self.ray)
            else:
                _join(self.ray, str(address))
            RaySession._n_open = 0
            RaySession._is_connected_by_us = True
            RaySession._is_started_by_us = is_own
        elif RaySession._n_open == 0:  # the user has called ray.init()
            RaySession._is_connected_by_us = RaySession._is_started_by_us = False
        RaySession._n_open += 1
        self._is_open = True

    @property
    def is_started_by_us(self) -> bool:
        """Return whether this process has started Ray on this machine."""
        return RaySession._is_started_by_us

    @property
    def allows_connections(self) -> bool:
        """Return whether the learner may open its own network connections to actors, in addition to Ray's.

        The answer is False outside the cluster (``ray://``), and if Ray encrypts its traffic.
        """
        is_encrypted = os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}
        return not is_encrypted and not self.ray.util.client.ray.is_connected()

    def close(self) -> None:
        """End this session; a second call does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        RaySession._n_open = max(0, RaySession._n_open - 1)
        if RaySession._n_open == 0 and RaySession._is_connected_by_us:
            RaySession._is_connected_by_us = RaySession._is_started_by_us = False
            self.ray.shutdown()


def _start(ray: Any) -> None:
    """Start Ray on this machine in such a way that other machines cannot connect to it."""
    with bound_to_loopback():
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level="ERROR",
        )


def _join(ray: Any, address: str) -> None:
    """Connect to a running Ray; if no Ray runs, raise a ValueError that says how to start one."""
    try:
        _probe(address)
        ray.init(address=address, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]  # a page of advice follows in Ray's messages
        raise ValueError(
            f"address={address!r}: no running Ray found there ({first_line}); start Ray with 'ray start --head', "
            "or leave the address out to start it on this machine"
        ) from error


def _probe(address: str) -> None:
    """Check that a server listens at an address. Ray itself would keep trying for many minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_TIMEOUT_S).close()


@contextmanager
def bound_to_loopback() -> Iterator[None]:
    """Make Ray listen on the loopback address only, if Ray is started inside the ``with`` block.

    Ray (2.60) reads an environment variable into a constant when it is imported. So this function sets the variable
    and the constant.
    """
    from ray._private import ray_constants

    had_constant = hasattr(ray_constants, "ENABLE_RAY_CLUSTER")
    constant = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    variable = os.environ.get(_LOOPBACK_SWITCH)
    os.environ[_LOOPBACK_SWITCH] = "0"
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        if variable is None:
            os.environ.pop(_LOOPBACK_SWITCH, None)
        else:
            os.environ[_LOOPBACK_SWITCH] = variable
        if had_constant:
            ray_constants.ENABLE_RAY_CLUSTER = constant
        else:
            del ray_constants.ENABLE_RAY_CLUSTER


def run_tasks(
    function: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    *,
    num_cpus: float = 1.0,
    num_gpus: float = 0.0,
    address: str | None = None,
) -> Iterator[tuple[int, Any]]:
    """Call a function in parallel Ray tasks, once for each tuple of arguments.

    The cluster limits how many calls run at a time. Each call runs in a new process. If the machine of the new process
    has the caller's working folder, the call runs in this folder.

    :param function: function to call, pickled by value if it cannot be imported
    :param arguments: the positional arguments of each call
    :param num_cpus: processors for each call
    :param num_gpus: share of a GPU for each call
    :param address: address of the cluster, see :class:`RaySession`
    :return: pairs of a call's index and its result or exception, in the order in which the calls end
    :raises ImportError: if Ray is not installed
    :raises ValueError: if no cluster can be joined, or if the cluster is too small for one call
    """
    session = RaySession(address)
    try:
        _check_room(session.ray, {"CPU": num_cpus, "GPU": num_gpus})
        # max_calls=1 runs each call in a new process, so that no memory and no threads of a previous call remain.
        options = {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": MAX_TASK_RETRIES, "max_calls": 1}
        task, paths = session.ray.remote(**options)(_call), SearchPaths.of_this_process()
        yield from _results(session.ray, [task.remote(paths, pack((function, each))) for each in arguments])
    finally:
        session.close()


def _check_room(ray: Any, needs: Mapping[str, float]) -> None:
    """Raise an error if the cluster is too small for a call, because Ray would wait forever."""
    total = ray.cluster_resources()
    for name, amount in needs.items():
        if amount > total.get(name, 0.0):
            there = total.get(name, 0.0)
            raise ValueError(
                f"each run needs {amount:g} {name}, but the whole cluster has {there:g}; request less, or add machines"
            )


def _results(ray: Any, tasks: list[Any]) -> Iterator[tuple[int, Any]]:
    """Yield the index and the result of each task as it ends; cancel the remaining tasks if the caller stops."""
    pending = {task: index for index, task in enumerate(tasks)}
    tasks.clear()  # Ray keeps a result in memory as long as there is a reference to its task
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


def _call(paths: SearchPaths, packed: bytes) -> Any:
    """Call a pickled function; this runs in a Ray task's process."""
    paths.apply()
    function, arguments = cloudpickle.loads(packed)
    return function(*arguments)
