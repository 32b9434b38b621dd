"""Ray: joined where it runs, started where it does not, and ended only by whom it was started."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

OBJECT_STORE_BYTES = 256 * 2**20
"""Room for observations on their way, of a Ray that is started here; Ray itself would take a third of the memory."""
_KNOCK_S = 10.0
_LOOPBACK_SWITCH = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""What has Ray listen to this machine alone, whatever the system: asked for an address it would take 127.0.0.1 for the
machine's outer one."""


def need_ray() -> Any:
    """:return: the module ``ray``

    :raises ImportError: if it is not installed; the extra is named
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            f"this needs Ray, which cannot be imported ({error}): install the extra, pip install 'sb3-visual-td3[ray]'"
        ) from error
    return ray


class RaySession:
    """Keeps Ray connected, from now until :meth:`close`, for one of those in this process that need it.

    A Ray that this process is connected to already is used as it is. Otherwise ``address`` says which to join; without
    one, and without ``RAY_ADDRESS`` in the environment, Ray is started on this machine, listens to this machine alone,
    and ends with the last session that needs it.

    :param address: ``"auto"`` (a Ray that runs on this machine), ``"10.0.0.1:6379"``, ``"ray://10.0.0.1:10001"``, or
        ``None``
    :raises ImportError: if Ray is not installed
    :raises ValueError: if there is no Ray at the address
    """

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
            RaySession._n_open, RaySession._is_connected_by_us, RaySession._is_started_by_us = 0, True, is_own
        elif RaySession._n_open == 0:  # the user's
            RaySession._is_connected_by_us = RaySession._is_started_by_us = False
        RaySession._n_open += 1
        self._is_open = True

    @property
    def is_started_by_us(self) -> bool:
        """Whether this Ray runs on this machine for this process alone."""
        return RaySession._is_started_by_us

    @property
    def allows_connections(self) -> bool:
        """Whether this process may connect with others of the cluster past Ray: not from outside (``ray://``), and not
        where Ray encrypts what it sends.
        """
        is_encrypted = os.environ.get("RAY_USE_TLS", "0").lower() in {"1", "true"}
        return not is_encrypted and not self.ray.util.client.ray.is_connected()

    def close(self) -> None:
        """Need it no more; a second call does nothing."""
        if not self._is_open:
            return
        self._is_open = False
        RaySession._n_open = max(0, RaySession._n_open - 1)
        if RaySession._n_open == 0 and RaySession._is_connected_by_us:
            RaySession._is_connected_by_us = RaySession._is_started_by_us = False
            self.ray.shutdown()


def _start(ray: Any) -> None:
    with listening_to_this_machine_alone():
        ray.init(
            address="local",
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level="ERROR",
        )


def _join(ray: Any, address: str) -> None:
    try:
        _knock(address)
        ray.init(address=address, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ValueError(
            f"address={address!r}: no Ray can be joined there ({first_line}); start one with 'ray start --head', or "
            "leave the address out to start one on this machine"
        ) from error


def _knock(address: str) -> None:
    """Look whether anybody is there, for whom Ray would wait many minutes.

    :raises OSError: if nobody is
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _KNOCK_S).close()


@contextmanager
def listening_to_this_machine_alone() -> Iterator[None]:
    """Have Ray (seen in 2.60) take the loopback address; it reads its switch when it is imported."""
    from ray._private import ray_constants

    with (
        patch.dict(os.environ, {_LOOPBACK_SWITCH: "0"}),
        patch.object(ray_constants, "ENABLE_RAY_CLUSTER", False, create=True),
    ):
        yield
