"""Produce faults on purpose, so that clients can be tested against a failing server."""

from __future__ import annotations

import math
import os
import re
import time
from dataclasses import dataclass
from typing import NamedTuple

KINDS = ("hang", "die", "drop-frames", "truncate-images", "refuse-spawns", "slow", "wrong-version")
FOREVER_S = 1e9
_MAX_COUNT = 1_000_000_000
# These faults need a tick, because no client could connect to a server that hangs or dies from the start.
_NEED_A_TICK = ("hang", "die")
_TAKE_SECONDS = ("hang", "slow")
_TAKE_NO_AMOUNT = ("die", "wrong-version")
_DEFAULT_AMOUNTS = {"hang": FOREVER_S, "slow": 0.2, "drop-frames": 1, "truncate-images": 1, "refuse-spawns": 1}
# This version differs from 0.9.16, so clients should reject it.
_WRONG_VERSION = "0.9.13"
_PATTERN = re.compile(r"(?P<kind>[a-z-]+)(=(?P<amount>\d+(\.\d+)?))?(@(?P<every>every:)?(?P<tick>\d{1,9}))?")


class Fault(NamedTuple):
    """Describe a planned fault, which happens from the start, at one tick, or at every n-th tick."""

    kind: str
    tick: int = 0
    """Tick at which the fault happens; 0 if it is active from the start. If the fault repeats: its period in ticks."""
    repeats: bool = False
    """True for a fault that happens at every ``tick``-th tick."""
    amount: float | None = None
    """Duration in seconds, or number of affected images or spawns; None for the default of
    :meth:`ActiveFaults.activate`."""

    @property
    def is_active_from_start(self) -> bool:
        """Return whether the fault is active from the start of the server."""
        return self.tick == 0

    def is_due(self, tick: int) -> bool:
        """Return whether the fault happens at this tick.

        :param tick: counted from 1 when the first client connects; 0 before that
        """
        if self.is_active_from_start or tick == 0:
            return False
        if self.repeats:
            return tick % self.tick == 0
        return tick == self.tick


def parse_fault(text: str) -> Fault:
    """Parse a fault that was given on the command line.

    :param text: ``KIND[=AMOUNT]``, ``KIND[=AMOUNT]@TICK`` or ``KIND[=AMOUNT]@every:N``
    :raises ValueError: if the form or kind is invalid, or the kind does not permit the amount or tick
    """
    found = _PATTERN.fullmatch(text)
    if found is not None and found["kind"] in KINDS:
        kind, tick, amount = found["kind"], 0, None
        if found["tick"]:
            tick = int(found["tick"])
        if found["amount"]:
            amount = float(found["amount"])
        # Tick 0 stands for "from the start", which must be written without a tick.
        is_tick_valid = tick >= 1 or not (found["tick"] or kind in _NEED_A_TICK)
        if is_tick_valid:
            check_fault(kind, amount)
            return Fault(kind, tick, found["every"] is not None, amount)
    raise ValueError(
        f"fault {text!r}: expected KIND[=AMOUNT][@TICK] or KIND[=AMOUNT]@every:N, with TICK and N at least 1. "
        f"KIND is one of {', '.join(KINDS)}; {' and '.join(_NEED_A_TICK)} need @TICK or @every:N"
    )


def check_fault(kind: object, amount: object = None) -> None:
    """Raise an error if the kind or the amount of a fault is invalid.

    :param kind: one of ``KINDS``
    :param amount: seconds from 0 to ``FOREVER_S``, or an integer number of images or spawns; None for the default
    :raises ValueError: if the kind is unknown, or does not permit the amount
    """
    if kind not in KINDS:
        raise ValueError(f"fault {kind!r}: expected one of {', '.join(KINDS)}")
    if amount is None:
        return
    if kind in _TAKE_NO_AMOUNT:
        raise ValueError(f"fault {kind}={amount!r}: {kind} takes no amount; leave it out")
    is_number = isinstance(amount, int | float) and not isinstance(amount, bool)
    number = float(amount) if is_number and abs(amount) <= _MAX_COUNT else math.nan  # type: ignore[arg-type]
    # Written so that NaN fails both comparisons.
    if kind in _TAKE_SECONDS:
        if not 0.0 <= number <= FOREVER_S:
            raise ValueError(f"fault {kind}={amount!r}: expected a number of seconds from 0 to {FOREVER_S:g}")
    elif not 0.0 <= number <= _MAX_COUNT or not number.is_integer():
        raise ValueError(f"fault {kind}={amount!r}: expected an integer number of images or spawns, 0 to {_MAX_COUNT}")


@dataclass
class ActiveFaults:
    """Hold the faults that are active now, and how many more images and spawns they will affect."""

    hang_s: float = 0.0
    images_to_drop: int = 0
    images_to_truncate: int = 0
    spawns_to_refuse: int = 0
    slow_s: float = 0.0
    version: str = ""
    """The version that the server reports; empty for the real version."""

    def activate(self, kind: str, amount: float | None = None) -> None:
        """Activate a fault now.

        :param kind: one of ``KINDS``; ``"die"`` ends the process at once, without cleanup
        :param amount: seconds of a hang or slow tick, or number of images or spawns. None: a hang lasts forever, a slow
            tick 0.2 s, and one image or spawn is affected.
        :raises ValueError: if the kind is unknown, or does not permit the amount
        """
        check_fault(kind, amount)
        if amount is None:
            amount = _DEFAULT_AMOUNTS.get(kind, 0.0)
        match kind:
            case "die":
                os._exit(1)
            case "hang":
                self.hang_s = amount
            case "slow":
                self.slow_s = amount
            case "drop-frames":
                self.images_to_drop = int(amount)
            case "truncate-images":
                self.images_to_truncate = int(amount)
            case "refuse-spawns":
                self.spawns_to_refuse = int(amount)
            case "wrong-version":
                self.version = _WRONG_VERSION

    def delay_tick(self) -> None:
        """Sleep for the duration of a hang or a slow tick. Meanwhile the server's single thread answers no call."""
        pause_s = max(self.hang_s, self.slow_s)
        self.hang_s = 0.0
        if pause_s:
            time.sleep(pause_s)

    def drops_image(self) -> bool:
        """Return whether to drop the next image; a result of True lowers ``images_to_drop`` by 1."""
        if self.images_to_drop <= 0:
            return False
        self.images_to_drop -= 1
        return True

    def truncate(self, image: bytes) -> bytes:
        """Return an image unchanged, or cut it to half its length if the fault "truncate-images" is active.

        The cut falls between two pixels of four bytes. A cut inside a pixel would end the client's process.

        :param image: body of a camera's measurement
        """
        if self.images_to_truncate <= 0:
            return image
        self.images_to_truncate -= 1
        return image[: len(image) // 8 * 4]

    def refuses_spawn(self) -> bool:
        """Return whether to refuse the next spawn; a result of True lowers ``spawns_to_refuse`` by 1."""
        if self.spawns_to_refuse <= 0:
            return False
        self.spawns_to_refuse -= 1
        return True
