"""What Ray is to give each environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class ActorOptions:
    """What each environment is given: arguments of Ray's ``options``."""

    num_cpus: float
    num_gpus: float
    resources: Mapping[str, float] = field(default_factory=dict)
    spread: bool = False
    runtime_env: Mapping[str, Any] | None = None

    def keywords(self) -> dict[str, Any]:
        """:return: the arguments; an actor is not started again by Ray, which would not tell that it died"""
        known: dict[str, Any] = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "max_restarts": 0}
        known["scheduling_strategy"] = "SPREAD" if self.spread else "DEFAULT"
        if self.resources:
            known["resources"] = dict(self.resources)
        if self.runtime_env is not None:
            known["runtime_env"] = dict(self.runtime_env)
        return known
