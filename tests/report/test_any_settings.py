"""Any content of a settings file: no crash, and no verdict that changes without a note."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_visual_td3.diagnosis.criteria import load_criteria
from sb3_visual_td3.diagnosis.rules import RULES
from sb3_visual_td3.report.analysis import Analysis, analyse
from sb3_visual_td3.report.event_reader import RunData
from sb3_visual_td3.report.hyperparam_comparison import reference_table
from sb3_visual_td3.report.recommendation import zoo_diff
from sb3_visual_td3.report.render_html import render_html
from sb3_visual_td3.report.render_json import render_json
from sb3_visual_td3.report.render_markdown import render_markdown
from sb3_visual_td3.report.run_settings import Layer, run_settings
from sb3_visual_td3.report.writing import report_csv

from .synthetic_runs import as_series, dead_policy, healthy, leaking, with_nan

CRITERIA = load_criteria()
RUNS = {
    name: as_series({tag: points for tag, points in run.items() if "shared" not in tag and "normalized" not in tag})
    for name, run in {
        "healthy": healthy(),
        "leaking": leaking(),
        "dead": dead_policy(),
        "nan": with_nan(),
        "shared": healthy(shared_encoder=True),
    }.items()
}
KNOWN = sorted(
    {name.name for parameter in reference_table().parameters.values() for name in parameter.names}
    | {p.key.partition(".")[0] for rule in RULES.values() for p in rule.cure.changes}
    | {"algo", "policy", "preset", "encoder", "env_id", "n_envs", "train_freq", "gradient_steps", "update_every"}
    | {"utd_ratio", "act_limit", "reward_is_normalized", "encoder_is_shared", "frame_stack", "n_timesteps"}
)
TEXTS = ["td3", "visual_td3", "VisualTD3", "CnnPolicy", "MlpPolicy", "visual", "shared", "LiteDriving-v0", "lin_1e-3"]
TEXTS += ["cos_0.1_0", "1e-4", "dict(a=1)", "dict(a=nn.ReLU)", "ConstantSchedule(val=0.1)", "<u>|`\n", "=1+1", ""]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats()
    | st.sampled_from([0, 1, -1, 50, 1e-4, 0.1, 1e308, 5e-324])
    | st.sampled_from(TEXTS)
    | st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["trunk_dim", "norm_reward", "actor", "reward", "frequency"]) | st.text(max_size=4),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)
CONTENTS = st.dictionaries(st.sampled_from(KNOWN) | st.text(max_size=6), VALUES, max_size=8)


def analysed(name: str, content: dict[str, Any] | None = None) -> Analysis:
    known, _ = run_settings(None if content is None else Layer.of("h.yml", content), None, None)
    return analyse(RunData(Path("run"), RUNS[name], (), 1), CRITERIA, name="run", settings=known)


ALONE = {name: analysed(name) for name in RUNS}


def tables_in(text: str) -> list[list[str]]:
    """Return the lines of each table."""
    is_row = [line.startswith("|") for line in text.splitlines()]
    groups = groupby(zip(is_row, text.splitlines(), strict=True), key=lambda pair: pair[0])
    return [[line for _, line in group] for is_table, group in groups if is_table]


@settings(max_examples=60)
@given(name=st.sampled_from(sorted(RUNS)), content=CONTENTS)
def test_any_settings_are_shown_and_never_change_a_verdict_silently(name: str, content: dict[str, Any]) -> None:
    analysis = analysed(name, content)
    notes = " ".join(analysis.notes)
    if analysis.verdict is not ALONE[name].verdict:
        assert f"From the event file alone the verdict would be {ALONE[name].verdict.value}" in notes
    if not analysis.stated_properties:
        assert analysis.criteria == ALONE[name].criteria
    json.loads(render_json([analysis]), parse_constant=lambda c: pytest.fail(f"{c} in the JSON"))
    for table in tables_in(render_markdown([analysis])):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1, table
    report_csv([analysis])
    block = [line[1:] for line in zoo_diff(analysis.recommendation.changes, analysis.settings)[2:] if line[0] != "-"]
    yaml.safe_load("\n".join(block))


@settings(max_examples=8)
@given(content=CONTENTS)
def test_any_settings_make_a_page(content: dict[str, Any]) -> None:
    page = render_html([analysed("dead", content)])
    assert "<u>|" not in page


def test_the_synthetic_runs_cover_all_verdicts_and_settings_change_one_of_them() -> None:
    assert {name: analysis.verdict.value for name, analysis in ALONE.items()} == {
        "healthy": "GO",
        "leaking": "NO-GO",
        "dead": "NO-GO",
        "nan": "NO-GO",
        "shared": "INSUFFICIENT",
    }
    assert analysed("shared", {"encoder": "shared"}).verdict.value == "GO"
