"""What can be made to go wrong, on purpose."""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from typing import NamedTuple

KINDS = ("hang", "die", "drop-frames", "truncate-images", "refuse-spawns", "slow", "wrong-version")
FOR_EVER_S = 1e9
SLOW_S = 0.2
_MANY = 1_000_000_000
_NEED_A_TICK = ("hang", "die")
_TAKE_SECONDS = ("hang", "slow")
_TAKE_NOTHING = ("die", "wrong-version")
_PATTERN = re.compile(r"(?P<kind>[a-z-]+)(=(?P<amount>\d+(\.\d+)?))?(@(?P<every>every:)?(?P<tick>\d{1,9}))?")


class Fault(NamedTuple):
    """One that is there from the start, happens at a tick, or at every so many of them."""

    kind: str
    tick: int = 0
    """0: from the start."""
    repeats: bool = False
    amount: float | None = None
    """Seconds, images or spawns; None: what ``Trouble.begin`` takes."""

    @property
    def is_from_the_start(self) -> bool:
        """Return whether no tick is named."""
        return self.tick == 0

    def is_due(self, tick: int) -> bool:
        """Return whether it happens at this tick, counted from 1 at the server's start."""
        if self.is_from_the_start:
            return False
        return tick % self.tick == 0 if self.repeats else tick == self.tick


def parse_fault(text: str) -> Fault:
    """Read ``KIND[=AMOUNT][@TICK]`` or ``KIND[=AMOUNT]@every:N``; without ``@`` it is so from the start.

    :raises ValueError: if it is neither.
    """
    found = _PATTERN.fullmatch(text)
    kind = found["kind"] if found else ""
    tick = int(found["tick"] or 0) if found else 0
    if found is None or kind not in KINDS or (found["tick"] and tick < 1) or (kind in _NEED_A_TICK and not tick):
        raise ValueError(
            f"fault {text!r}: expected KIND@TICK, KIND@every:N or KIND=AMOUNT@TICK with TICK and N at least 1, "
            f"KIND one of {', '.join(KINDS)}; {' and '.join(_NEED_A_TICK)} need a tick"
        )
    amount = float(found["amount"]) if found["amount"] else None
    check_fault(kind, amount)
    return Fault(kind, tick, found["every"] is not None, amount)


def check_fault(kind: object, amount: object = None) -> None:
    """Do nothing where a fault can happen.

    :param kind: one of ``KINDS``.
    :param amount: seconds, 0 to ``FOR_EVER_S``, or a whole number of images or spawns; None: the kind's own.
    :raises ValueError: if there is no such kind, or it has no such amount.
    """
    if kind not in KINDS:
        raise ValueError(f"fault {kind!r}: expected one of {', '.join(KINDS)}")
    if amount is None:
        return
    if kind in _TAKE_NOTHING:
        raise ValueError(f"fault {kind}={amount!r}: expected no amount; {kind} happens once")
    is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
    number = float(amount) if is_number and abs(amount) <= _MANY else math.nan  # type: ignore[arg-type]
    if kind in _TAKE_SECONDS:
        if not 0.0 <= number <= FOR_EVER_S:  # NaN is outside too
            raise ValueError(f"fault {kind}={amount!r}: expected seconds, 0 to {FOR_EVER_S:g}")
    elif not 0.0 <= number <= _MANY or not number.is_integer():
        raise ValueError(f"fault {kind}={amount!r}: expected a whole number, 0 to {_MANY}, of images or spawns")


@dataclass
class Trouble:
    """What is wrong now; numbers count down as it happens."""

    hang_s: float = 0.0
    frames_to_drop: int = 0
    images_to_truncate: int = 0
    spawns_to_refuse: int = 0
    slow_s: float = 0.0
    version: str = ""

    def begin(self, kind: str, amount: float | None = None) -> None:
        """Make something go wrong.

        :param kind: one of ``KINDS``.
        :param amount: seconds of a hang or per tick; frames, images or spawns; None: for ever, or 1 image, 1 spawn.
        :raises ValueError: if there is no such kind, or it has no such amount.
        """
        check_fault(kind, amount)
        match kind:
            case "die":
                os._exit(1)
            case "hang":
                self.hang_s = FOR_EVER_S if amount is None else amount
            case "slow":
                self.slow_s = SLOW_S if amount is None else amount
            case "drop-frames":
                self.frames_to_drop = 1 if amount is None else int(amount)
            case "truncate-images":
                self.images_to_truncate = 1 if amount is None else int(amount)
            case "refuse-spawns":
                self.spawns_to_refuse = 1 if amount is None else int(amount)
            case "wrong-version":
                self.version = "0.9.13"

    def wait(self) -> None:
        """Wait as long as what is wrong makes a tick take."""
        pause_s, self.hang_s = max(self.hang_s, self.slow_s), 0.0
        if pause_s:
            time.sleep(pause_s)

    def drops_frame(self) -> bool:
        """Return whether this image is not sent."""
        self.frames_to_drop -= (is_dropped := self.frames_to_drop > 0)
        return is_dropped

    def cut(self, image: bytes) -> bytes:
        """Return an image as it is sent; cut between pixels: within one, and the client ends its process."""
        self.images_to_truncate -= (is_cut := self.images_to_truncate > 0)
        return image[: len(image) // 8 * 4] if is_cut else image

    def refuses_spawn(self) -> bool:
        """Return whether this spawn is refused."""
        self.spawns_to_refuse -= (is_refused := self.spawns_to_refuse > 0)
        return is_refused
