"""All that the report computes of a run below its verdict, in the order in which it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sb3_visual_td3.diagnosis.findings import Diagnosis
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult
from sb3_visual_td3.report.document import Section
from sb3_visual_td3.report.sections.alerts import Alert, alerts, tell_alerts
from sb3_visual_td3.report.sections.availability import Availability, availability
from sb3_visual_td3.report.sections.critics import Critics, critics, tell_critics
from sb3_visual_td3.report.sections.episodes import (
    Episodes,
    Evaluations,
    episodes,
    evaluations,
    tell_episodes,
    tell_evaluations,
)
from sb3_visual_td3.report.sections.growth import Growth, growth, tell_growth
from sb3_visual_td3.report.sections.norms import Norms, norms, tell_norms
from sb3_visual_td3.report.sections.rewards import Rewards, rewards, tell_rewards


@dataclass(frozen=True)
class RunSections:
    """The figures of each section; every one can be computed from any series at all."""

    growth: Growth
    norms: Norms
    critics: Critics
    rewards: Rewards
    episodes: Episodes
    evaluations: Evaluations
    alerts: Mapping[str, Alert]
    availability: Availability

    @classmethod
    def of(
        cls, data: SeriesSet, criteria: Sequence[CriterionResult] = (), diagnoses: Sequence[Diagnosis] = ()
    ) -> RunSections:
        """Compute them all."""
        # Sums and ratios of absurd values overflow; that is infinite, not a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            return cls(
                growth=growth(data),
                norms=norms(data, diagnoses),
                critics=critics(data),
                rewards=rewards(data),
                episodes=episodes(data),
                evaluations=evaluations(data),
                alerts=alerts(data),
                availability=availability(data, criteria),
            )

    def told(self) -> tuple[Section, ...]:
        """Return the sections between the plots and the list of metrics; what was not logged is left out."""
        sections = (
            tell_growth(self.growth),
            tell_norms(self.norms),
            tell_critics(self.critics),
            tell_rewards(self.rewards),
            tell_episodes(self.episodes),
            tell_evaluations(self.evaluations),
            tell_alerts(self.alerts),
        )
        return tuple(section for section in sections if section is not None)
