"""The learner's end of a line to an actor, which makes steps at the other end and nothing else meanwhile."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from sb3_visual_td3.vec_env.step_line import Address, Line, LineBrokenError, dial


class ActorLine(Line):
    """A line at which an actor serves, from now until it is left.

    :param actor: Ray's handle of an :class:`EnvActor` that listens
    :param address: where it does
    :raises OSError: if its machine is out of reach
    """

    def __init__(self, actor: Any, address: Address) -> None:
        try:
            super().__init__(dial(address))
        except OSError:
            actor.close_door.remote()
            raise
        self.service: Any = actor.serve.remote()
        """Ray's reference to the end of the service: None, or what the environment has raised."""
        self.is_left = False

    def leave(self) -> None:
        """Have the actor come back to Ray's calls, when it has made the step that is under way."""
        if not self.is_left:
            self.is_left = True
            with suppress(LineBrokenError):
                self.send(None)

    def close(self) -> None:
        """Hang up, whatever is under way: the actor comes back to Ray's calls."""
        self.leave()
        super().close()
