from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from gymnasium import spaces

from sb3_visual_td3 import VisualTD3
from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.findings import Diagnosis, Evidence
from sb3_visual_td3.diagnosis.ranking import diagnose
from sb3_visual_td3.diagnosis.rules import RULES
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.diagnosis.verdict import Verdict
from sb3_visual_td3.envs.lite.lite_env import LiteDrivingEnv
from sb3_visual_td3.report.recommendation import Change, Recommendation, as_yaml, recommend, zoo_diff
from sb3_visual_td3.report.run_settings import Layer, RunSettings, run_settings
from sb3_visual_td3.runs.manifest import RunManifest
from tests.image_env import ImageEnv

from .synthetic_runs import REAL_RUNS, as_series, dead_policy, healthy, needs_real_runs, write_events

Report = Callable[..., int]
ZOO_KEYS = {"normalize", "env_kwargs"}
"""The recommended keys that rl_zoo3 2.9 removes from a block before it passes the rest to the algorithm."""


def settings(**content: Any) -> RunSettings:
    return run_settings(Layer.of("h.yml", content) if content else None, None, None)[0]


def diagnosis(identifier: str, tag: str = "gradients/critic_mlp_update_ratio", **keys: Any) -> Diagnosis:
    return Diagnosis(
        identifier, "", **{"confidence": 0.9, **keys}, evidence=(Evidence(tag, 1, 1.0, ""),), remedy="", first_step=None
    )


def recommended(*identifiers: str, n_steps: int = 5000, **content: Any) -> Recommendation:
    series = SeriesSet.of([Series(tags.ACTOR_LOSS, np.array([n_steps]), np.array([0.0]))])
    return recommend(Verdict.NO_GO, [diagnosis(i) for i in identifiers], settings(**content), series)


def pairs(recommendation: Recommendation) -> dict[str, tuple[Any, Any]]:
    return {change.key: (change.old, change.new) for change in recommendation.changes}


def lines(recommendation: Recommendation, **content: Any) -> list[str]:
    """Return the diff without its heading and its reasons."""
    return [line.split("  # ")[0] for line in zoo_diff(recommendation.changes, settings(**content))[2:]]


def test_every_rule_recommends_setting_changes_with_reasons_or_a_code_change() -> None:
    for rule in RULES.values():
        assert rule.cure.changes or rule.cure.code, rule.id
        assert all(change.reason for change in rule.cure.changes), rule.id


def test_every_proposed_key_is_one_that_visual_td3_or_rl_zoo_takes() -> None:
    accepted = set(VisualTD3.__init__.__annotations__)
    for rule in RULES.values():
        for change in rule.cure.changes:
            parent, _, child = change.key.partition(".")
            assert parent in accepted | ZOO_KEYS | {"group_lr"}, change.key
            if parent == "env_kwargs":
                assert child in LiteDrivingEnv.__init__.__annotations__


class SmallVectorEnv(gym.Env[np.ndarray, np.ndarray]):
    observation_space = spaces.Box(-1, 1, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)


@pytest.mark.parametrize(("policy", "env"), [("CnnPolicy", ImageEnv), ("MlpPolicy", SmallVectorEnv)])
def test_a_model_can_be_created_with_all_recommended_settings(policy: str, env: type[gym.Env[Any, Any]]) -> None:
    stock = {"algo": "visual_td3", "policy": policy, "preset": "td3", "learning_rate": 1e-3, "tau": 0.001}
    found = [
        recommended(identifier, **stock, policy_kwargs={"net_arch": [8]}, max_grad_norm=max_grad_norm).changes
        for identifier in RULES
        for max_grad_norm in (None, 1.0)
    ]
    arguments: dict[str, Any] = {"policy_kwargs": {"net_arch": [8]}}
    for change in (change for changes in found for change in changes):
        parent, _, child = change.key.partition(".")
        if child and parent not in ZOO_KEYS:
            arguments[parent][child] = change.new
        elif parent not in ZOO_KEYS:
            arguments[parent] = change.new
    assert len(arguments) >= 9
    model = VisualTD3(policy, env(), buffer_size=10, **arguments)
    in_force = model.describe()
    for name, value in arguments.items():
        if name in in_force:
            assert in_force[name].value == value


def test_the_diff_replaces_learning_rate_0_1_by_1e_4_with_a_reason() -> None:
    found = recommended("learning_rate_too_high", algo="visual_td3", learning_rate=0.1)
    assert pairs(found) == {"learning_rate": (0.1, 1e-4)}
    diff = zoo_diff(found.changes, settings(algo="visual_td3", learning_rate=0.1))
    assert diff[:3] == ("--- as it was run", "+++ recommended", "-learning_rate: 0.1")
    assert diff[3].startswith("+learning_rate: 1.0e-4  # ")


@pytest.mark.parametrize(
    ("tag", "content", "expected"),
    [
        ("gradients/critic_mlp_update_ratio", {"learning_rate": 1e-4}, {"learning_rate": (1e-4, 3e-5)}),
        (
            "gradients/critic_mlp_update_ratio",
            {"learning_rate": "lin_0.1"},
            {"learning_rate": ("lin_0.1", "lin_0.0001")},
        ),
        (
            "gradients/critic_mlp_update_ratio",
            {"learning_rate": "cos_0.01_0.001"},
            {"learning_rate": ("cos_0.01_0.001", "cos_0.0001_1e-05")},
        ),
        (
            "gradients/critic_cnn_update_ratio",
            {"critic_cnn_lr": 0.1, "learning_rate": 1e-4},
            {"critic_cnn_lr": (0.1, 1e-4)},
        ),
        ("gradients/actor_mlp_norm", {"critic_lr": 0.1, "learning_rate": 1e-3}, {"learning_rate": (1e-3, 1e-4)}),
        ("gradients/actor_mlp_norm", {"actor_lr": 0.1, "learning_rate": 0.1}, {"learning_rate": (0.1, 1e-4)}),
        ("gradients/critic_mlp_norm", {"pi_lr": 1e-3, "q_lr": 0.1}, {"critic_lr": (0.1, 1e-4)}),
        ("gradients/critic_mlp_norm", {"lr": 0.1}, {"learning_rate": (0.1, 1e-4)}),
        ("train/q1_value", {}, {"learning_rate": (None, 1e-4)}),
    ],
)
def test_the_rate_of_the_group_in_the_evidence_is_lowered(
    tag: str, content: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    found = recommend(Verdict.NO_GO, [diagnosis("learning_rate_too_high", tag)], settings(**content), SeriesSet())
    assert pairs(found) == expected


def test_logged_learning_rates_are_used_if_there_is_no_settings_file() -> None:
    series = [Series("agent/critic_lr", np.array([1]), np.array([0.5]))]
    found = [diagnosis("learning_rate_too_high")]
    assert pairs(recommend(Verdict.NO_GO, found, settings(), SeriesSet.of(series))) == {"learning_rate": (0.5, 1e-4)}
    series.append(Series("agent/actor_lr", np.array([1]), np.array([1e-4])))
    assert pairs(recommend(Verdict.NO_GO, found, settings(), SeriesSet.of(series))) == {"critic_lr": (0.5, 1e-4)}


@pytest.mark.parametrize(
    ("identifier", "content", "expected"),
    [
        (
            "actor_saturation",
            {"preset": "td3"},
            {"pre_tanh_penalty": (0.0, 5e-3), "policy_kwargs.trunk_dim": (None, 50)},
        ),
        ("actor_saturation", {"preset": "visual"}, {"pre_tanh_penalty": (5e-3, 0.02)}),
        ("actor_saturation", {"pre_tanh_penalty": 1e-5}, {"pre_tanh_penalty": (1e-5, 5e-3)}),
        ("critic_overestimation", {"preset": "visual"}, {"policy_kwargs.layer_norm": (False, True)}),
        (
            "critic_overestimation",
            {"target_q_clamp": 50.0, "actor_objective": "min", "policy_kwargs": {"layer_norm": True}},
            {},
        ),
        ("reward_scale", {"normalize": False}, {"normalize": (False, {"norm_obs": False, "norm_reward": True})}),
        (
            "reward_scale",
            {"normalize": {"norm_obs": True, "norm_reward": False}},
            {"normalize": ({"norm_obs": True, "norm_reward": False}, {"norm_obs": True, "norm_reward": True})},
        ),
        ("reward_scale", {"normalize": True}, {}),
        ("reward_scale", {"reward_is_normalized": True}, {}),
        ("reward_scale", {"tau": 0.005}, {"normalize": (None, {"norm_obs": False, "norm_reward": True})}),
        ("stale_target_network", {"tau": 0.0}, {"tau": (0.0, 0.005)}),
        ("stale_target_network", {"polyak": 1.0}, {"tau": (0.0, 0.005)}),
        ("stale_target_network", {"tau": 0.005}, {}),
        ("short_warmup", {"learning_starts": 100}, {"learning_starts": (100, 1000)}),
        ("short_warmup", {"update_after": 100, "start_steps": 5000}, {"learning_starts": (100, 1000)}),
        ("short_warmup", {"learning_starts": 2500}, {}),
        ("constant_clipping", {"max_grad_norm": 1.0}, {"max_grad_norm": (1.0, 10.0)}),
        ("constant_clipping", {"max_grad_norm": {"actor": 1.0}}, {}),
        (
            "gradient_explosion",
            {"learning_rate": 1e-5, "max_grad_norm": {"actor": 1.0}},
            {"learning_rate": (1e-5, 3e-6)},
        ),
        ("twin_critic_desync", {"learning_rate": 1e-3}, {"critic_lr": (1e-3, 3e-4)}),
        ("twin_critic_desync", {"tau": 1}, {}),
        (
            "reward_imbalance",
            {"env_id": "LiteDriving-v0", "env_kwargs": {"reward": "progress_heavy"}},
            {"env_kwargs.reward": ("progress_heavy", "balanced")},
        ),
        ("reward_imbalance", {"env_id": "LiteDriving-v0"}, {}),
        ("reward_imbalance", {"env_id": "Other-v0", "env_kwargs": {"reward": "x"}}, {}),
        ("feature_leak", {"learning_rate": 0.1}, {}),
    ],
)
def test_only_values_that_differ_from_the_runs_own_are_proposed(
    identifier: str, content: dict[str, Any], expected: dict[str, tuple[Any, Any]]
) -> None:
    known = {} if identifier in ("twin_critic_desync", "reward_scale") else {"algo": "visual_td3"}
    assert pairs(recommended(identifier, **known, **content)) == expected


def test_recommended_learning_starts_is_a_tenth_of_the_run_within_fixed_limits() -> None:
    for n_steps, learning_starts in ((500, 1000), (50_000, 5000), (1_000_000, 10_000)):
        found = recommended("short_warmup", n_steps=n_steps, learning_starts=100)
        assert pairs(found)["learning_starts"][1] == learning_starts


def test_nothing_is_recommended_for_a_run_that_is_go() -> None:
    found = [diagnosis("learning_rate_too_high")]
    assert recommend(Verdict.GO, found, settings(learning_rate=0.1), SeriesSet()) == Recommendation()
    assert recommend(Verdict.INSUFFICIENT, found, settings(learning_rate=0.1), SeriesSet()).changes


def test_nothing_is_recommended_for_consequences_and_low_confidence_causes() -> None:
    weak = diagnosis("reward_scale", confidence=0.4)
    follows = diagnosis("gradient_explosion", role="consequence")
    assert recommend(Verdict.NO_GO, [weak, follows], settings(learning_rate=1.0), SeriesSet()) == Recommendation()


def test_the_first_diagnosis_decides_if_two_propose_the_same_setting() -> None:
    found = recommended("learning_rate_too_high", "gradient_explosion", learning_rate=1.0)
    assert [(c.key, c.diagnosis) for c in found.changes] == [
        ("learning_rate", "learning_rate_too_high"),
        ("max_grad_norm", "gradient_explosion"),
    ]


def test_a_feature_leak_needs_a_code_change_or_a_bug_report() -> None:
    sentence = recommended("feature_leak", algo="td3").code["feature_leak"]
    assert "change the code" in sentence
    assert "--algo visual_td3" in sentence
    assert "report it" in recommended("feature_leak", algo="VisualTD3").code["feature_leak"]


def test_arguments_of_visual_td3_alone_are_marked() -> None:
    reasons = {c.key: c.reason for c in recommended("gradient_explosion", algo="td3", learning_rate=1.0).changes}
    assert "--algo visual_td3" in reasons["max_grad_norm"]
    assert "--algo visual_td3" not in reasons["learning_rate"]
    ours = recommended("gradient_explosion", algo="visual_td3", preset="td3", learning_rate=1.0)
    assert "--algo visual_td3" not in "".join(c.reason for c in ours.changes)


def test_reward_normalisation_for_stock_td3_with_frame_stack_warns_of_rl_zoos_crash() -> None:
    (change,) = recommended("reward_scale", algo="td3", frame_stack=4).changes
    assert "rl-zoo's own train crashes with this setting" in change.reason
    (change,) = recommended("reward_scale", algo="td3").changes
    assert "crashes" not in change.reason


def test_frozen_targets_with_a_usual_tau_need_a_code_change() -> None:
    assert "must be missing" in recommended("stale_target_network", tau=0.005).code["stale_target_network"]
    assert recommended("stale_target_network", tau=0.0).code == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"policy_kwargs": {"net_arch": [8]}}, ["+pre_tanh_penalty: 0.005", " policy_kwargs:", "+  trunk_dim: 50"]),
        (
            {"policy_kwargs": {"trunk_dim": None, "a": 1}, "pre_tanh_penalty": 0.0},
            ["-pre_tanh_penalty: 0.0", "+pre_tanh_penalty: 0.005", " policy_kwargs:", "+  trunk_dim: 50"],
        ),
        (
            {"policy_kwargs": "dict(net_arch=dict(pi=[8], qf=[4]), trunk_dim=0)"},
            [
                "+pre_tanh_penalty: 0.005",
                '-policy_kwargs: "dict(net_arch=dict(pi=[8], qf=[4]), trunk_dim=0)"',
                "+policy_kwargs:",
                "+  net_arch: {pi: [8], qf: [4]}",
                "+  trunk_dim: 50",
            ],
        ),
        (
            {"policy_kwargs": "dict(activation_fn=nn.ReLU)"},
            [
                "+pre_tanh_penalty: 0.005",
                ' policy_kwargs: "dict(activation_fn=nn.ReLU)"',
                "+# policy_kwargs is Python code; add this: trunk_dim=50",
            ],
        ),
        ({"learning_rate": 1}, ["+pre_tanh_penalty: 0.005", "+policy_kwargs:", "+  trunk_dim: 50"]),
    ],
)
def test_the_diff_follows_the_notation_of_the_hyperparameter_file(content: dict[str, Any], expected: list[str]) -> None:
    assert lines(recommended("actor_saturation", **content), **content) == expected


@pytest.mark.parametrize("identifier", sorted(RULES))
@pytest.mark.parametrize(
    "content",
    [
        {},
        {"algo": "td3", "policy_kwargs": "dict(net_arch=[400, 300])", "learning_rate": 1e-2, "tau": 0.0},
        {"policy_kwargs": {"net_arch": {"pi": [8]}, "x": "yes"}, "normalize": "dict(norm_obs=False)", "q_lr": 1.0},
    ],
)
def test_added_lines_are_yaml_with_the_recommended_values(identifier: str, content: dict[str, Any]) -> None:
    found = recommended(identifier, **content)
    block = [line[1:] for line in zoo_diff(found.changes, settings(**content))[2:] if not line.startswith("-")]
    read = yaml.safe_load("\n".join(block)) or {}
    for change in found.changes:
        parent, _, child = change.key.partition(".")
        assert (read[parent][child] if child else read[parent]) == change.new
    assert bool(block) == bool(found.changes)


def test_values_from_the_zoos_file_are_replaced_and_values_from_a_preset_are_added(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(yaml.dump(OrderedDict(learning_rate=0.1, policy="CnnPolicy")))
    (tmp_path / "args.yml").write_text(yaml.dump(OrderedDict(algo="visual_td3", env="LiteDriving-v0")))
    in_force = {"learning_rate": 0.1, "critic_lr": 0.1, "pre_tanh_penalty": 5e-3, "policy_kwargs.trunk_dim": 50}
    manifest = RunManifest("VisualTD3", "LiteDriving-v0", hyperparams=in_force)
    known, _ = run_settings(None, manifest, tmp_path)
    found = [diagnosis("actor_saturation"), diagnosis("learning_rate_too_high")]
    diff = zoo_diff(recommend(Verdict.NO_GO, found, known, SeriesSet()).changes, known)
    assert [line.split("  # ")[0] for line in diff[2:]] == [
        "+pre_tanh_penalty: 0.02",
        "-learning_rate: 0.1",
        "+learning_rate: 1.0e-4",
    ]


VALUES: list[Any] = [
    0.1,
    1e-4,
    3e-5,
    1.5e-7,
    1e6,
    1.25e8,
    0.0,
    -2.5,
    5,
    True,
    None,
    "min",
    "lin_3e-4",
    "yes",
    "null",
    "1e-3",
    "",
    "a: b",
    "# no",
    "<script>`x`&",
    "ä\u2028\U0001f600\n\t\"'\\",
    [1, 2.5, "a"],
    {"norm_obs": False, "a": {"b": [None]}},
    float("inf"),
]


@pytest.mark.parametrize("value", VALUES)
def test_a_value_written_as_yaml_is_read_back_unchanged_and_contains_no_markup(value: Any) -> None:
    text = as_yaml(value)
    assert yaml.safe_load(f"key: {text}  # comment") == {"key": value}
    assert not set(text) & set("<>&`\n")


def test_the_report_of_a_dead_policy_contains_a_diff_of_recommended_changes(report: Report, tmp_path: Path) -> None:
    write_events(dead_policy(), tmp_path / "run")
    (tmp_path / "h.yml").write_text(
        "algo: visual_td3\npolicy: CnnPolicy\npre_tanh_penalty: 0.0\npolicy_kwargs: {trunk_dim: null}\n"
    )
    report(tmp_path / "run", "--hyperparams", tmp_path / "h.yml")
    run = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    assert [set(change) for change in run["recommended_changes"]] == [{"key", "old", "new", "reason"}] * 2
    assert [(c["key"], c["old"], c["new"]) for c in run["recommended_changes"]] == [
        ("pre_tanh_penalty", 0.0, 0.005),
        ("policy_kwargs.trunk_dim", None, 50),
    ]
    text = (tmp_path / "out" / "report.md").read_text()
    block = text.split("```diff\n")[1].split("```")[0]
    assert block.startswith("--- as it was run\n+++ recommended\n-pre_tanh_penalty: 0.0\n+pre_tanh_penalty: 0.005  # ")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "+pre_tanh_penalty: 0.005  # " in page


def test_nothing_is_recommended_for_a_healthy_run(report: Report, tmp_path: Path) -> None:
    write_events(healthy(), tmp_path / "run")
    (tmp_path / "h.yml").write_text("learning_rate: 1\n")
    report(tmp_path / "run", "--hyperparams", tmp_path / "h.yml")
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["verdict"] == "GO"
    assert (found["run"]["recommended_changes"], found["run"]["recommended_code_changes"]) == ([], {})
    assert "Recommended changes" not in (tmp_path / "out" / "report.md").read_text()


@needs_real_runs
@pytest.mark.parametrize("name", ["seed_5k", "clipped_5k"])
def test_the_recorded_runs_need_other_code_and_no_other_settings(report: Report, tmp_path: Path, name: str) -> None:
    report(REAL_RUNS / name)
    run = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    assert run["recommended_changes"] == []
    assert "change the code" in run["recommended_code_changes"]["feature_leak"]
    assert "change the code" in (tmp_path / "out" / "report.md").read_text()


def test_markup_in_settings_is_escaped_in_every_report(report: Report, tmp_path: Path) -> None:
    markup = "</script><script>alert(1)</script>```|![x](http://e.org/x.png)"
    write_events(dead_policy(), tmp_path / "run")
    content = {
        "pre_tanh_penalty": markup,
        "policy_kwargs": f"dict(a={markup!r})",
        markup: {markup: markup},
        "tau": markup,
    }
    (tmp_path / "h.json").write_text(json.dumps(content))
    report(tmp_path / "run", "--hyperparams", tmp_path / "h.json", "--format", "md,html,json,csv")
    before, rest = (tmp_path / "out" / "report.md").read_text().split("```diff\n")
    block, after = rest.split("\n```\n")
    for text in (before, after):
        assert "<script" not in text
        assert "![x](" not in text
    assert "`" not in block  # what stands in a block is text, unless it ends the block
    assert "<script" not in block
    assert "alert(1)</script>" not in (tmp_path / "out" / "report.html").read_text()
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "report.md",
        "report.html",
        "report.json",
        "report.csv",
        "series.csv",
    }


def test_a_recommended_change_states_its_reason_and_its_diagnosis() -> None:
    assert recommended("reward_scale").changes[0] == Change(
        "normalize",
        None,
        {"norm_obs": False, "norm_reward": True},
        "VecNormalize scales the rewards to the order of 1; images are scaled by the policy",
        "reward_scale",
    )
    assert diagnose(as_series(dead_policy()))[0].id == "actor_saturation"
