"""Render report.json: the analysis for programs, in a versioned format."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sb3_visual_td3.diagnosis.verdict import worst_verdict
from sb3_visual_td3.report.analysis import Analysis
from sb3_visual_td3.report.hyperparam_comparison import reference_table
from sb3_visual_td3.report.next_step import next_step
from sb3_visual_td3.report.sections.alerts import Alert
from sb3_visual_td3.report.wording import near_misses

FORMAT_VERSION = 2


def render_json(analyses: Sequence[Analysis], unreadable: Sequence[str] = ()) -> str:
    """Return the text of report.json: an object for one run, or a comparison with an object for each run.

    :param analyses: the runs
    :param unreadable: one line per unreadable run
    """
    if len(analyses) == 1 and not unreadable:
        content = run_object(analyses[0])
    else:
        content = {
            "format_version": FORMAT_VERSION,
            "verdict": worst_verdict(a.verdict for a in analyses).value,
            "runs": [run_object(analysis) for analysis in analyses],
            "unreadable": list(unreadable),
        }
    return json.dumps(_safe(content), indent=2, allow_nan=False, ensure_ascii=False) + "\n"


def run_object(analysis: Analysis) -> dict[str, Any]:
    """Return the object that describes one run in report.json."""
    return {
        "format_version": FORMAT_VERSION,
        "verdict": analysis.verdict.value,
        "stable": analysis.stable,
        "learning": analysis.learning,
        "evidence": analysis.evidence.level,
        "checks": {"made": analysis.evidence.n_made, "possible": analysis.evidence.n_possible},
        "kind": analysis.answers.kind.family.value,
        "curve": _curve(analysis),
        "until": analysis.until,
        "verdict_over_time": _over_time(analysis),
        "criteria": [
            {
                "id": r.id,
                "title": r.title,
                "status": r.status.value,
                "blocking": r.blocking,
                "value": r.value,
                "threshold": r.threshold,
                "source": r.source,
            }
            for r in analysis.criteria
        ],
        "diagnoses": [
            {
                "id": d.id,
                "title": d.title,
                "confidence": d.confidence,
                "evidence": [asdict(e) for e in d.evidence],
                "remedy": d.remedy,
                "first_step": d.first_step,
            }
            for d in analysis.diagnoses
        ],
        "next_step": _next_step(analysis),
        "near_misses": list(near_misses(analysis)),
        "alerts": _alerts(analysis),
        "metrics": {tag: asdict(metric) for tag, metric in analysis.metrics.items()},
        "run": _run(analysis),
    }


def _next_step(analysis: Analysis) -> dict[str, Any]:
    step = next_step(analysis)
    return {"text": step.text, "snippets": [snippet._asdict() for snippet in step.snippets]}


def _curve(analysis: Analysis) -> dict[str, Any] | None:
    """Return the judgement of the run's return curve for report.json; None if no return was logged."""
    curve = analysis.curve
    if curve is None:
        return None
    return {
        "tag": curve.tag,
        "state": curve.state.value,
        "start": curve.start,
        "peak": curve.peak,
        "peak_step": curve.peak_step,
        "last": curve.late,
        "last_step": curve.last_step,
        "reasons": list(analysis.answers.learning.reasons),
    }


def _over_time(analysis: Analysis) -> dict[str, Any] | None:
    """Return the verdicts on the run's earlier parts; None if they were not requested."""
    over_time = analysis.over_time
    if over_time is None:
        return None
    return {
        "prefixes": [
            {"until": prefix.until, "verdict": None if prefix.verdict is None else prefix.verdict.value}
            for prefix in over_time.prefixes
        ],
        "no_go_from": over_time.no_go_from,
        "part_after": over_time.part_after,
    }


def _alerts(analysis: Analysis) -> dict[str, Any]:
    """Return how many points of each alert are active (have the value 1); None if the run did not log the alert."""
    counts: dict[str, Any] = {"warning": None, "critical": None}
    counts.update({name: alert.n_active for name, alert in analysis.alerts.items()})
    return counts


def _run(analysis: Analysis) -> dict[str, Any]:
    return {
        "name": analysis.name,
        "path": str(analysis.data.path),
        "files": [file.name for file in analysis.data.files],
        "n_steps": analysis.series.n_steps,
        "n_points": analysis.data.n_points,
        "missing_tags": list(analysis.missing),
        "alert_points": {name: alert.n_points for name, alert in analysis.alerts.items()},
        "alert_first_steps": {name: alert.first_step for name, alert in analysis.alerts.items()},
        **run_figures(analysis),
        "notes": list(analysis.notes),
        "manifest": None if analysis.manifest is None else asdict(analysis.manifest),
        **_settings(analysis),
    }


def _settings(analysis: Analysis) -> dict[str, Any]:
    """Return the known settings of the run, their comparison with references, and the recommended changes."""
    return {
        "hyperparams": {name: asdict(found) for name, found in analysis.settings.given_settings()},
        "answers": [asdict(each) for each in analysis.stated_properties],
        "hyperparam_comparison": [asdict(row) for row in analysis.hyperparams],
        "hyperparam_references": dict(reference_table().sources) if analysis.hyperparams else {},
        "recommended_changes": [
            {"key": c.key, "old": c.old, "new": c.new, "reason": c.reason} for c in analysis.recommendation.changes
        ],
        "recommended_code_changes": dict(analysis.recommendation.code),
    }


def run_figures(analysis: Analysis) -> dict[str, Any]:
    """Return the numbers of all sections by name; they are not part of the stable format of report.json."""
    sections = analysis.sections
    return {
        "availability": asdict(sections.availability)["kinds"],
        "growth": {one.tag: asdict(one) for one in sections.growth.timelines},
        "norms": asdict(sections.norms),
        "critics": asdict(sections.critics),
        "rewards": asdict(sections.rewards),
        "episodes": asdict(sections.episodes),
        "evaluations": asdict(sections.evaluations),
        "alert_history": {name: _history(alert) for name, alert in sections.alerts.items()},
    }


def _history(alert: Alert) -> dict[str, Any]:
    return {
        "n_points": alert.n_points,
        "n_active": alert.n_active,
        "first_step": alert.first_step,
        "last_step": alert.last_step,
        "n_stretches": len(alert.stretches),
        "longest_stretch": alert.longest,
    }


def _safe(value: Any) -> Any:
    """Return a value that JSON can express: NaN and infinity become null, a NamedTuple becomes an object."""
    # JSON has no NaN; Python would write a bare NaN that most parsers refuse.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, dict):
        return {str(key): _safe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe(item) for item in value]
    return value
