from __future__ import annotations

import inspect
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import TD3
from stable_baselines3.common.utils import ConstantSchedule, FloatSchedule, LinearSchedule

from sb3_visual_td3.common import tags
from sb3_visual_td3.common.schedules import Linear
from sb3_visual_td3.diagnosis.series import Series, SeriesSet
from sb3_visual_td3.report.hyperparam_comparison import (
    ComparedParameter,
    as_number,
    compare_hyperparams,
    comparison_table,
    contradictions,
    hyperparam_rows,
    reference_table,
    stated,
)
from sb3_visual_td3.report.run_settings import Layer, RunSettings, run_settings
from sb3_visual_td3.runs.manifest import RunManifest

from .synthetic_runs import REAL_RUNS, needs_real_runs

Report = Callable[..., int]

SEED_SETTINGS = """\
# what the hand-made report on the run says of it, section 3
actor_lr: 1e-4
critic_lr: 1e-4
actor_cnn_lr: 1e-5
critic_cnn_lr: 1e-4
tau: 0.005
gamma: 0.99
buffer_size: 97000
batch_size: 256
start_steps: 2500
update_after: 2500
update_every: 1
policy_delay: 2
act_noise: 0.1
target_noise: 0.2
noise_clip: 0.5
"""


def settings(**content: Any) -> RunSettings:
    return run_settings(Layer.of("h.yml", content), None, None)[0]


def compared(series: SeriesSet | None = None, **content: Any) -> dict[str, ComparedParameter]:
    return {row.id: row for row in compare_hyperparams(settings(**content), series or SeriesSet())}


def line(tag: str, *points: tuple[int, float]) -> Series:
    return Series(tag, np.array([s for s, _ in points]), np.array([v for _, v in points]))


def value_of(parameter: str, **content: Any) -> float | None:
    reading = stated(reference_table().parameters[parameter], settings(**content))
    return None if reading is None else reading.value


def test_the_sb3_column_is_the_signature_of_the_installed_sb3() -> None:
    signature = {name: p.default for name, p in inspect.signature(TD3).parameters.items()}
    column = {name: p.references["sb3"] for name, p in reference_table().parameters.items()}
    named = {"tau", "gamma", "buffer_size", "batch_size", "policy_delay", "target_policy_noise", "target_noise_clip"}
    for name in (*named, "n_steps"):
        assert column[name].value == signature[name], name
    for name in ("actor_lr", "critic_lr", "actor_cnn_lr", "critic_cnn_lr"):
        assert column[name].value == signature["learning_rate"]
    assert column["random_steps"].value == column["first_update"].value == signature["learning_starts"]
    assert column["updates_per_step"].value == signature["gradient_steps"] / signature["train_freq"]
    assert column["exploration_noise"].is_off == (signature["action_noise"] is None)
    assert column["max_grad_norm"].is_off == ("max_grad_norm" not in signature)


def test_the_reference_columns_match_the_code_of_the_references() -> None:
    columns = {
        reference: {
            name: p.references[reference].value
            for name, p in reference_table().parameters.items()
            if reference in p.references and not p.references[reference].is_off
        }
        for reference in ("spinning_up", "td3_authors")
    }
    shared = {"tau": 0.005, "gamma": 0.99, "buffer_size": 1e6, "updates_per_step": 1, "policy_delay": 2}
    shared |= {"target_policy_noise": 0.2, "target_noise_clip": 0.5, "exploration_noise": 0.1, "n_steps": 1}
    assert columns["spinning_up"] == {
        **shared,
        "actor_lr": 1e-3,
        "critic_lr": 1e-3,
        "batch_size": 100,
        "random_steps": 10_000,
        "first_update": 1_000,
    }
    assert columns["td3_authors"] == {
        **shared,
        "actor_lr": 3e-4,
        "critic_lr": 3e-4,
        "batch_size": 256,
        "random_steps": 25_000,
        "first_update": 25_000,
    }


@pytest.mark.parametrize(
    ("parameter", "content", "value"),
    [
        ("tau", {"polyak": 0.995}, 0.005),
        ("tau", {"tau": 0.01, "polyak": 0.995}, 0.01),
        ("gamma", {"discount": 0.98}, 0.98),
        ("buffer_size", {"replay_size": 1_000_000}, 1e6),
        ("actor_lr", {"pi_lr": 1e-3}, 1e-3),
        ("critic_lr", {"q_lr": "1e-3"}, 1e-3),
        ("critic_lr", {"actor_lr": 1e-3}, None),
        ("actor_lr", {"learning_rate": "lin_3e-4"}, 3e-4),
        ("actor_lr", {"learning_rate": 1e-3, "actor_lr": 1e-5}, 1e-5),
        ("actor_cnn_lr", {"learning_rate": 1e-3, "actor_lr": 1e-5}, 1e-3),
        ("random_steps", {"learning_starts": 100}, 100),
        ("first_update", {"learning_starts": 100}, 100),
        ("random_steps", {"start_steps": 10_000, "update_after": 1_000}, 10_000),
        ("first_update", {"start_steps": 10_000, "update_after": 1_000}, 1_000),
        ("first_update", {"start_timesteps": 25_000}, 25_000),
        ("policy_delay", {"policy_freq": 2}, 2),
        ("policy_delay", {"policy_frequency": 2}, 2),
        ("target_policy_noise", {"policy_noise": 0.2}, 0.2),
        ("exploration_noise", {"noise_type": "normal", "noise_std": 0.1}, 0.1),
        ("exploration_noise", {"exploration_noise": 0.1}, 0.1),
        ("exploration_noise", {"expl_noise": 0.1}, 0.1),
        ("exploration_noise", {"noise_schedule": "lin_0.5_0.1"}, 0.5),
        ("exploration_noise", {"act_noise": 0.2, "act_limit": 2.0}, 0.1),
        ("target_policy_noise", {"target_noise": 0.4, "act_limit": 2.0}, 0.2),
        ("target_noise_clip", {"noise_clip": 0.5, "act_limit": 1.0}, 0.5),
        ("exploration_noise", {"exploration_noise": 0.2, "act_limit": 2.0}, 0.2),
        ("updates_per_step", {"update_every": 50}, 1),
        ("updates_per_step", {"update_every": 50, "gradient_steps": 50}, 1),
        ("updates_per_step", {"update_every": 50, "gradient_steps": 1}, 0.02),
        ("updates_per_step", {"update_every": 1}, 1),
        ("updates_per_step", {"train_freq": 1, "gradient_steps": 1}, 1),
        ("updates_per_step", {"train_freq": 4, "gradient_steps": 1}, 0.25),
        ("updates_per_step", {"train_freq": [4, "step"], "gradient_steps": 4}, 1),
        ("updates_per_step", {"train_freq": {"frequency": 4, "unit": "step"}, "gradient_steps": 4}, 1),
        ("updates_per_step", {"train_freq": 1, "gradient_steps": 8, "n_envs": 8}, 1),
        ("updates_per_step", {"train_freq": [1, "episode"], "gradient_steps": -1}, 1),
        ("updates_per_step", {"train_freq": [1, "episode"], "gradient_steps": 100}, None),
        ("updates_per_step", {"train_freq": 4}, None),
        ("updates_per_step", {"train_freq": 4, "algo": "td3"}, 0.25),
        ("updates_per_step", {"utd_ratio": 20}, 20),
        ("updates_per_step", {"update_every": 0}, None),
    ],
)
def test_many_notations_have_one_meaning(parameter: str, content: dict[str, Any], value: float | None) -> None:
    found = value_of(parameter, **content)
    assert found == (None if value is None else pytest.approx(value, rel=1e-9))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0.1, (0.1, False)),
        ("1e-4", (1e-4, False)),
        ("lin_1e-4", (1e-4, True)),
        ("cos_3e-4_1e-5", (3e-4, True)),
        (repr(FloatSchedule(0.001)), (0.001, False)),
        (repr(ConstantSchedule(1e-5)), (1e-5, False)),
        (repr(LinearSchedule(3e-4, 0.0, 1.0)), (3e-4, True)),
        ("FloatSchedule(SimpleLinearSchedule(initial_value=0.001))", (0.001, True)),
        (repr(Linear(0.5, 0.1)), (0.5, True)),
        ("<function <lambda> at 0x7f>", None),
        ("LinearSchedule(start=-.e)", None),
        (True, None),
        (None, None),
        ([1], None),
        (float("nan"), None),
        (float("inf"), None),
    ],
)
def test_as_number_reads_numbers_and_the_start_value_of_schedules(
    value: object, number: tuple[float, bool] | None
) -> None:
    assert as_number(value) == number


def words(row: ComparedParameter) -> list[str]:
    return [row.against[reference].words for reference in ("spinning_up", "sb3", "td3_authors")]


def test_polyak_is_tau_in_another_notation() -> None:
    assert words(compared(tau=0.005)["tau"]) == ["same meaning, other notation", "same", "same"]
    polyak = compared(polyak=0.995)["tau"]
    assert words(polyak) == ["same", "same meaning, other notation", "same meaning, other notation"]
    assert polyak.ours == "0.005 (polyak 0.995)"
    assert words(compared(polyak=0.99)["tau"]) == ["2 times higher"] * 3


def test_the_update_every_setting_is_compared_by_updates_per_step() -> None:
    assert words(compared(update_every=1)["updates_per_step"]) == [
        "same ratio, written as 50 updates every 50 steps; this does not mean 50 times more updates",
        "same",
        "same",
    ]
    assert words(compared(update_every=50)["updates_per_step"]) == [
        "same",
        "same ratio, written as 1 update every step; this does not mean 50 times fewer updates",
        "same ratio, written as 1 update every step; this does not mean 50 times fewer updates",
    ]
    assert words(compared(update_every=50, gradient_steps=1)["updates_per_step"]) == ["50 times lower"] * 3


def test_values_that_differ_are_compared_by_a_factor() -> None:
    rows = compared(actor_lr=1e-4, batch_size=256, buffer_size=97_000, n_steps=3)
    assert words(rows["actor_lr"]) == ["10 times lower", "10 times lower", "3 times lower"]
    assert words(rows["batch_size"]) == ["2.56 times higher", "same", "same"]
    assert words(rows["buffer_size"]) == ["10.3 times lower"] * 3
    assert words(rows["n_steps"]) == ["3 times higher"] * 3
    assert rows["actor_lr"].against["sb3"].factor == pytest.approx(10)


def test_discounts_are_compared_by_their_horizon() -> None:
    assert words(compared(gamma=0.995)["gamma"]) == ["looks 2 times further ahead"] * 3
    assert words(compared(gamma=0.98)["gamma"]) == ["looks 2 times less ahead"] * 3
    assert words(compared(gamma=1.0)["gamma"]) == ["1.01 times higher"] * 3


def test_unknown_values_and_missing_counterparts_are_named() -> None:
    rows = compared(tau=0.005, max_grad_norm=None, act_noise=0.1)
    assert words(rows["batch_size"]) == ["not known"] * 3
    assert words(rows["max_grad_norm"]) == ["same"] * 3
    assert words(rows["exploration_noise"]) == ["same", "none there", "same"]
    assert words(compared(max_grad_norm=10)["max_grad_norm"]) == ["none there"] * 3
    assert words(compared(actor_cnn_lr=1e-5)["actor_cnn_lr"]) == [
        "no counterpart",
        "100 times lower",
        "no counterpart",
    ]
    assert words(compared(tau="?")["tau"]) == ["not comparable with ?"] * 3
    assert compared(tau=0)["tau"].against["sb3"].words == "lower"


def test_norms_by_group_are_shown_together() -> None:
    assert compared(max_grad_norm={"actor": 1.0, "critic": 10.0})["max_grad_norm"].ours == "actor 1.0, critic 10.0"


def test_a_schedule_is_compared_at_its_start() -> None:
    row = compared(learning_rate="lin_1e-3")["actor_lr"]
    assert row.ours == "lin_1e-3"
    assert words(row) == ["same, at the start", "same, at the start", "3.33 times higher, at the start"]


def test_encoder_learning_rates_have_rows_only_if_the_policy_has_encoders() -> None:
    rates = {"actor_cnn_lr", "critic_cnn_lr"}
    assert not rates & compared(learning_rate=1e-3, policy="MlpPolicy").keys()
    assert rates <= compared(learning_rate=1e-3, policy="CnnPolicy").keys()
    shared = compared(learning_rate=1e-3, policy="CnnPolicy", policy_kwargs={"encoder": "shared"})
    assert rates & shared.keys() == {"critic_cnn_lr"}


def test_nothing_is_compared_if_no_setting_is_known() -> None:
    assert compare_hyperparams(RunSettings(), SeriesSet()) == ()


@pytest.mark.parametrize(
    ("algo", "is_compared"),
    [("td3", True), ("DDPG", True), ("CarAgent", True), ("ppo", False), ("SAC", False), ("ppo_lstm", False)],
)
def test_runs_of_other_known_algorithms_are_not_compared(algo: str, is_compared: bool) -> None:
    assert bool(compared(algo=algo, learning_rate=1e-3)) is is_compared


@pytest.mark.parametrize("tag", ["train/approx_kl", "rollout/exploration_rate", "train/ent_coef", "losses/alpha_loss"])
def test_the_settings_of_other_algorithms_are_recognised_by_the_tags_and_not_compared(tag: str) -> None:
    rate = line("train/learning_rate", (1, 3e-4), (2, 3e-4))
    assert compared(SeriesSet.of([rate]))
    other = SeriesSet.of([rate, line(tag, (1, 0.1), (2, 0.1))])
    assert not compared(other)
    assert not compared(other, algo="CarAgent")
    assert all(compared(other, algo=algo) for algo in ("td3", "VisualTD3", "DDPG", "MyTD3"))


def test_default_values_are_used_only_if_the_algorithm_is_known() -> None:
    row = compared(algo="td3", learning_rate=1e-3)["batch_size"]
    assert (row.ours, row.source) == ("256", "SB3's default")
    assert compared(learning_rate=1e-3)["batch_size"].ours is None


def test_the_event_file_supplies_values_that_no_settings_file_has() -> None:
    series = SeriesSet.of(
        [
            line("agent/actor_lr", (100, np.float32(3e-4)), (200, np.float32(3e-4))),
            line("agent/actor_cnn_lr", (100, np.float32(1e-5))),
            line(tags.EXPLORATION_NOISE, (100, 0.3), (200, 0.2)),
            line(tags.TOTAL_ITERATIONS, (100, 0), *((100 * i, 25.0 * i) for i in range(2, 8))),
        ]
    )
    rows = {row.id: row for row in compare_hyperparams(RunSettings(), series)}
    assert (rows["actor_lr"].ours, rows["actor_lr"].source) == ("0.0003", "event file")
    assert words(rows["actor_lr"])[2] == "same"
    assert rows["exploration_noise"].ours == "0.3 to 0.2"
    assert rows["updates_per_step"].ours == "0.25"
    assert rows["actor_cnn_lr"].ours == "1e-05"
    assert "critic_cnn_lr" not in rows
    stock = SeriesSet.of([line("train/learning_rate", (4, 1e-3))])
    assert {r.id: r for r in compare_hyperparams(RunSettings(), stock)}["critic_lr"].ours == "0.001"


def test_settings_that_the_event_file_contradicts_are_noted() -> None:
    series = SeriesSet.of([line("agent/actor_lr", (100, 3e-4)), line("agent/critic_lr", (100, 1e-4))])
    rows = compare_hyperparams(settings(learning_rate=1e-4), series)
    assert contradictions(rows) == ("learning rate, actor: 0.0001 in h.yml, but 0.0003 in the event file",)
    decaying = SeriesSet.of([line("agent/actor_lr", (100, 9e-4), (200, 1e-4))])
    assert contradictions(compare_hyperparams(settings(actor_lr="lin_1e-3"), decaying)) == ()
    assert len(contradictions(compare_hyperparams(settings(actor_lr=1e-3), decaying))) == 1


def test_the_table_has_a_cell_for_every_heading() -> None:
    headings, rows = comparison_table(compare_hyperparams(settings(tau=0.005), SeriesSet()))
    assert headings == ("Hyperparameter", "This run", "From", "Spinning Up", "SB3 2.9", "TD3's authors")
    assert {len(row) for row in rows} == {len(headings)}
    assert rows[2][:3] == ("step of the target networks, tau", "0.005", "h.yml")


@needs_real_runs
def test_the_settings_of_the_first_carla_run_are_compared_correctly(report: Report, tmp_path: Path) -> None:
    (tmp_path / "seed.yml").write_text(SEED_SETTINGS)
    report(REAL_RUNS / "seed_5k", "--hyperparams", tmp_path / "seed.yml")
    run = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    rows = {row["id"]: row for row in run["hyperparam_comparison"]}
    assert rows["updates_per_step"]["against"]["spinning_up"]["words"] == (
        "same ratio, written as 50 updates every 50 steps; this does not mean 50 times more updates"
    )
    assert rows["tau"]["against"]["spinning_up"]["agreement"] == "other_notation"
    assert rows["tau"]["against"]["sb3"]["agreement"] == "same"
    assert rows["random_steps"]["against"]["spinning_up"]["words"] == "4 times lower"
    assert rows["first_update"]["against"]["sb3"]["words"] == "25 times higher"
    assert rows["actor_cnn_lr"]["against"]["sb3"]["words"] == "100 times lower"
    # The report's figures are not those of its file.
    assert rows["actor_lr"]["contradiction"] == "0.0003"
    assert rows["exploration_noise"]["contradiction"] == "0.3 to 0.2071"
    assert rows["actor_cnn_lr"]["contradiction"] is None
    assert rows["updates_per_step"]["contradiction"] is None
    text = (tmp_path / "out" / "report.md").read_text()
    assert "does not mean 50 times more updates" in text
    assert "exploration noise: 0.1 in seed.yml, but 0.3 to 0.2071 in the event file" in text


@needs_real_runs
def test_the_first_carla_runs_event_file_shows_some_settings(report: Report, tmp_path: Path) -> None:
    report(REAL_RUNS / "seed_5k")
    run = json.loads((tmp_path / "out" / "report.json").read_text())["run"]
    told_by_file = {row["id"]: row["ours"] for row in run["hyperparam_comparison"] if row["ours"] is not None}
    assert told_by_file == {
        "actor_lr": "0.0003",
        "critic_lr": "0.0003",
        "actor_cnn_lr": "1e-05",
        "critic_cnn_lr": "0.0001",
        "updates_per_step": "1",
        "exploration_noise": "0.3 to 0.2071",
    }


def test_the_command_of_a_run_is_shown_as_it_was_typed() -> None:
    manifest = RunManifest("TD3", "My-v0", command=["visual-td3", "train", "--hyperparams", "a:'b c'; reboot"])
    command = dict(hyperparam_rows(manifest))["command"]
    assert shlex.split(command) == list(manifest.command)
