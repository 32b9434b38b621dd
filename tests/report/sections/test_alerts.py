from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.sections.alerts import Alert, Stretch, alerts, alerts_section


def alert(*values: float) -> Alert:
    return Alert.of(Series("alerts/x", np.arange(1, len(values) + 1) * 100, np.array(values)))


def test_points_and_activations_are_counted_separately() -> None:
    found = alert(0, 1, 1, 0, 0, 1, 1, 1, 0, 1)
    assert (found.n_points, found.n_active, found.first_step, found.last_step) == (10, 6, 200, 1000)
    assert found.stretches == (
        Stretch(200, 300, 400, 2),
        Stretch(600, 800, 900, 3),
        Stretch(1000, 1000, 1000, 1),
    )
    assert found.longest == Stretch(600, 800, 900, 3)


@pytest.mark.parametrize("values", [(0.0,), (0.0, 0.0), (np.nan, 2.0, 0.5, -1.0)])
def test_only_points_with_the_value_1_are_active(values: tuple[float, ...]) -> None:
    found = alert(*values)
    assert (found.n_active, found.first_step, found.last_step, found.longest) == (0, None, None, None)


def test_each_active_point_belongs_to_exactly_one_active_period() -> None:
    values = (np.random.default_rng(0).random(500) < 0.5).astype(float)
    found = alert(*values)
    assert sum(stretch.n_points for stretch in found.stretches) == found.n_active == values.sum()
    ends = [step for stretch in found.stretches for step in (stretch.first_step, stretch.last_step)]
    assert ends == sorted(ends)


def of(**points: list[float]) -> SeriesSet:
    return SeriesSet.of(
        Series(f"alerts/{name}", np.arange(len(values)) * 50, np.array(values)) for name, values in points.items()
    )


def test_every_alert_has_its_short_name() -> None:
    found = alerts(of(gradient_explosion_warning=[0.0], gradient_explosion_critical=[1.0], dead_camera=[1.0]))
    assert list(found) == ["dead_camera", "critical", "warning"]
    assert found["critical"].tag == tags.ALERT_CRITICAL


def test_the_section_has_activations_points_and_silent_alerts() -> None:
    section = alerts_section(alerts(of(gradient_explosion_critical=[0.0, 1.0, 1.0], dead_camera=[0.0, 0.0, 0.0])))
    assert section is not None
    said = [part for sentence in section.sentences for part in sentence]
    assert " has 3 points, of which 2 are active and 1 are not." in said
    assert "Logged and never active: dead_camera." in said
    (row,) = section.tables[0].rows
    assert row == ("critical", "2", "3", "66.7 %", "50", "100", "1", "2 points, 50 to 100")
    assert alerts_section({}) is None
