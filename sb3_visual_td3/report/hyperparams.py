"""The hyperparameters of a run as rows to show; they decide nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sb3_visual_td3.report.hyperparams_found import RunSettings
from sb3_visual_td3.runs.manifest import FILE_NAME, RunManifest


def hyperparam_rows(manifest: RunManifest | None) -> tuple[tuple[str, str], ...]:
    """Return name and value of everything that run.json tells, nested names joined by a dot."""
    if manifest is None:
        return ()
    rows: list[tuple[str, str]] = [
        ("algo", manifest.algo),
        ("env_id", manifest.env_id),
        ("seed", _text(manifest.seed)),
        ("n_timesteps", _text(manifest.n_timesteps)),
        ("encoder", _text(manifest.encoder)),
        ("reward_is_normalized", _text(manifest.reward_is_normalized)),
        ("started", _text(manifest.started)),
        ("finished", _text(manifest.finished)),
        ("end", _text(manifest.how_it_ended if manifest.end else None)),
    ]
    _flatten("", manifest.hyperparams, rows)
    _flatten("git ", manifest.git or {}, rows)
    _flatten("machine ", manifest.machine, rows)
    rows += [("command", " ".join(manifest.command))] if manifest.command else []
    rows += [(f"version of {package}", _text(version)) for package, version in sorted(manifest.versions.items())]
    return tuple((name, value) for name, value in rows if value != "null")


def other_setting_rows(settings: RunSettings) -> tuple[tuple[str, str, str], ...]:
    """Return name, value and source of what other files than run.json tell."""
    return tuple(
        (name, _text(found.value), found.source)
        for name, found in settings.told_settings()
        if found.source != FILE_NAME
    )


def _flatten(prefix: str, values: Mapping[str, Any], rows: list[tuple[str, str]]) -> None:
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            _flatten(f"{name}.", value, rows)
        else:
            rows.append((name, _text(value)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
