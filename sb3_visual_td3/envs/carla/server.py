"""The server of one environment: leased, started where asked for, and started again."""

from __future__ import annotations

from typing import NamedTuple

from sb3_visual_td3.envs.carla.failures import SimulatorLostError, SimulatorUnusableError, UnknownHostError
from sb3_visual_td3.envs.carla.handshake import server_version, wait_for_server
from sb3_visual_td3.envs.carla.launcher import Simulator
from sb3_visual_td3.envs.carla.port_lease import PortLease, lease_free, lease_running
from sb3_visual_td3.envs.carla.settings import ServerSettings


class Address(NamedTuple):
    """Where a server listens."""

    host: str
    port: int


class Server:
    """Nothing is leased or started before :meth:`ensure`.

    :param settings: where the simulator is.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._lease: PortLease | None = None
        self._shared_with: Address | None = None
        self._simulator: Simulator | None = None
        self._has_answered = False

    @property
    def address(self) -> Address | None:
        """Where the server is, once it has been looked for."""
        if self._shared_with is not None:
            return self._shared_with
        return None if self._lease is None else Address(self.settings.host, self._lease.port)

    @property
    def is_ours(self) -> bool:
        """Whether the simulator is started and ended here."""
        return self.settings.command is not None and self._shared_with is None

    @property
    def is_shared(self) -> bool:
        """Whether another environment drives on it too, by turns."""
        return self._shared_with is not None or self.settings.is_shared

    def share(self, address: Address) -> None:
        """Use, by turns with whoever has leased it, a server that runs."""
        self.close()
        self._shared_with = address

    def ensure(self) -> Address:
        """Return where the server is, which answers by now.

        :raises SimulatorLostError: if it does not come up or does not answer.
        :raises SimulatorUnusableError: if it cannot be used.
        """
        address = self._find()
        try:
            if self.is_ours and (self._simulator is None or not self._simulator.is_running()):
                address = self._start()
            else:
                wait_for_server(*address, self.settings.timeout_s, is_starting=False)
        except UnknownHostError as error:
            if not self._has_answered:
                raise
            # The name was known: the name service is down, or forgets a container's name until it runs again.
            raise SimulatorLostError(str(error)) from error
        self._has_answered = True
        return address

    def answers(self) -> bool:
        """Return whether the server answers now: it is alive, whatever else it does not do."""
        if self.address is None:
            return False
        try:
            server_version(*self.address, min(1.0, self.settings.timeout_s))
        except (SimulatorLostError, SimulatorUnusableError):
            return False
        return True

    def restart(self) -> None:
        """End the simulator, if it is ours; :meth:`ensure` starts it anew, or one in place of a shared one."""
        if self.settings.command is not None:
            self._shared_with = None
        if self._simulator is not None:
            self._simulator.stop()
            self._simulator = None

    def close(self) -> None:
        """End the simulator, if it is ours, and give the port back; a second call does nothing."""
        self.restart()
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _find(self) -> Address:
        if self.address is None:
            settings = self.settings
            if settings.is_shared:
                return Address(settings.host, settings.ports[0])
            is_started_here = settings.command is not None
            self._lease = lease_free(settings.ports[0]) if is_started_here else lease_running(*_place(settings))
        assert self.address is not None
        return self.address

    def _start(self) -> Address:
        assert self.settings.command is not None
        assert self._lease is not None
        self.restart()
        if not self._lease.is_free():
            # Something has taken the port while our simulator was down. It could not listen there, and what does
            # would be taken for it.
            self._lease.release()
            self._lease = lease_free(self.settings.ports[0])
        address = Address(self.settings.host, self._lease.port)
        simulator = Simulator(self.settings.command, address.port)
        self._simulator = simulator
        try:
            wait_for_server(*address, self.settings.start_timeout_s, is_starting=True, check=simulator.check)
        except SimulatorLostError:
            self.restart()
            raise
        return address


def _place(settings: ServerSettings) -> tuple[str, tuple[int, ...]]:
    return settings.host, settings.ports
