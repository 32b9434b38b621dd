from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sb3_visual_td3.cli import main
from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.two_questions import environment_steps, too_early
from sb3_visual_td3.report.event_reader import RunData, UnreadableRunError
from sb3_visual_td3.report.tag_mapping import (
    built_in_mappings,
    load_tag_mapping,
    mapping_to_start_from,
    with_our_names,
)

from .synthetic_runs import Values, as_series, healthy, leaking, write_events

Report = Callable[..., int]


def cleanrl() -> Values:
    """Return what td3_continuous_action.py logs: a point every 100 steps, and one at the end of each episode."""
    steps = np.arange(25_100, 30_001, 100)
    x = np.linspace(0, 1, steps.size)
    ends = np.array([120, 250, 400, 401, 900])
    return {
        "losses/actor_loss": (steps, -1 - 9 * x),
        "losses/qf1_loss": (steps, 3 + x),
        "losses/qf2_loss": (steps, 4 + x),
        "losses/qf_loss": (steps, (7 + 2 * x) / 2.0),
        "losses/qf1_values": (steps, 1 + 9 * x),
        "losses/qf2_values": (steps, 1 + 9.1 * x),
        "charts/episodic_return": (ends, np.array([1.0, 2.0, 3.0, 4.0, 5.0])),
        "charts/episodic_length": (ends, np.array([120.0, 130.0, 150.0, 1.0, 499.0])),
        "charts/SPS": (steps, np.full(steps.size, 90.0)),
    }


def data_of(run: Values) -> RunData:
    return RunData(Path("run"), as_series(run), (), 1)


def mapping_file(folder: Path, text: str) -> Path:
    path = folder / "names.yml"
    path.write_text(text)
    return path


def test_cleanrl_tags_are_mapped_without_a_file() -> None:
    data = with_our_names(data_of(cleanrl()))
    assert set(data.series.names()) == {
        tags.ACTOR_LOSS,
        tags.CRITIC_LOSS,
        tags.CRITIC_1_LOSS,
        tags.CRITIC_2_LOSS,
        tags.Q1_VALUE,
        tags.Q2_VALUE,
        tags.EPISODE_REWARD,
        tags.EPISODE_LENGTH,
        "charts/SPS",
    }
    (note,) = data.notes
    assert note.startswith("Tags of CleanRL renamed to ours: ")
    assert "losses/qf_loss times 2 as train/critic_loss" in note


@pytest.mark.parametrize(
    ("tag", "axis", "every", "expected"),
    [
        ("rollout/ep_rew_mean", "environment steps", 3, "environment steps"),
        ("rollout/ep_rew_mean", "steps", 3, "steps"),
        ("train/reward", "environment steps", 1, "steps"),
        ("train/reward", "episodes", 1, "episodes"),
        ("charts/episodic_return", "environment steps", 64, "environment steps"),
    ],
)
def test_steps_that_may_not_be_environment_steps_do_not_make_a_run_too_short(
    tag: str, axis: str, every: int, expected: str
) -> None:
    steps = np.arange(1, 21) * every
    run = {tag: (steps, np.zeros(20)), "losses/td_loss": (steps, np.zeros(20))}
    data = with_our_names(RunData(Path("run"), as_series(run), (), 1, axis=axis))
    assert data.axis == expected
    assert environment_steps(data.series) == (20 * every if expected == "environment steps" else None)
    assert (too_early(data.series) is not None) is (expected == "environment steps")


def test_critic_loss_of_cleanrl_is_mapped_to_the_sum_of_both_critic_losses() -> None:
    series = with_our_names(data_of(cleanrl())).series
    total = series[tags.CRITIC_1_LOSS].values + series[tags.CRITIC_2_LOSS].values
    np.testing.assert_allclose(series[tags.CRITIC_LOSS].values, total)


def test_points_of_an_episode_tag_are_numbered_by_episode() -> None:
    series = with_our_names(data_of(cleanrl())).series
    assert series[tags.EPISODE_LENGTH].steps.tolist() == [0, 1, 2, 3, 4]
    assert series[tags.EPISODE_LENGTH].values.tolist() == [120, 130, 150, 1, 499]
    assert series[tags.Q1_VALUE].steps[0] == 25_100
    assert series.n_steps == 30_000


def test_a_cleanrl_leak_is_no_go_once_its_tags_are_mapped(report: Report, tmp_path: Path) -> None:
    run = cleanrl()
    steps, _ = run["losses/actor_loss"]
    run["losses/actor_loss"] = (steps, -3 * np.exp(14 * np.linspace(0, 1, steps.size)))
    write_events(run, tmp_path / "run")
    assert report(tmp_path / "run") == 1
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["diagnoses"][0]["id"] == "feature_leak"
    unknown = {f"x/{name}": points for name, points in run.items()}
    write_events(unknown, tmp_path / "unknown")
    assert report(tmp_path / "unknown") == 3


def test_a_tag_that_only_looks_like_one_of_cleanrl_is_not_renamed() -> None:
    run = {"losses/qf_loss": (np.array([1]), np.array([1.0]))}
    assert with_our_names(data_of(run)).series.names() == ["losses/qf_loss"]


def test_tags_of_this_package_are_never_replaced() -> None:
    run = {**healthy(), **cleanrl()}
    ours = healthy()
    data = with_our_names(data_of(run))
    for tag, (_, values) in ours.items():
        np.testing.assert_array_equal(data.series[tag].values, values)
    assert "losses/actor_loss" in data.series
    assert tags.CRITIC_1_LOSS in data.series  # what healthy() has not


def test_eval_mean_ep_length_is_mapped_and_rollout_ep_len_mean_is_not() -> None:
    steps = np.array([1000, 2000])
    run = {name: (steps, np.array([1.0, 2.0])) for name in ("time/fps", tags.CRITIC_LOSS, "eval/mean_ep_length")}
    run["rollout/ep_len_mean"] = (steps, np.array([50.0, 60.0]))
    data = with_our_names(data_of(run))
    assert data.series[tags.EVAL_LENGTH].values.tolist() == [1, 2]
    assert tags.EPISODE_LENGTH not in data.series
    assert "rollout/ep_len_mean" in data.series


def test_built_in_mappings_map_to_known_tags_and_name_their_library() -> None:
    assert {mapping.name for mapping in built_in_mappings()} == {"CleanRL", "Stable-Baselines3"}
    for mapping in built_in_mappings():
        assert mapping.recognised_by
        assert {t.tag for targets in mapping.targets.values() for t in targets} <= set(tags.TAGS)
        assert not mapping.keep_out.keys() & mapping.targets.keys()


def test_a_mapping_file_applies_factor_and_sign(report: Report, tmp_path: Path) -> None:
    run = leaking()
    steps, loss = run.pop(tags.ACTOR_LOSS)
    run["Policy/objective"] = (steps, -loss / 2)
    write_events(run, tmp_path / "run")
    file = mapping_file(tmp_path, "Policy/objective: {tag: train/actor_loss, scale: -2}\n")
    report(tmp_path / "run", "--tags", file)
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["metrics"][tags.ACTOR_LOSS]["last"] == pytest.approx(loss[-1])
    assert "Policy/objective" not in found["metrics"]
    assert found["diagnoses"][0]["id"] == "feature_leak"
    assert "Policy/objective times -2 as train/actor_loss" in str(found["run"]["notes"])


def test_one_logged_tag_may_be_mapped_to_two_tags(tmp_path: Path) -> None:
    file = mapping_file(tmp_path, "lr: [agent/actor_lr, agent/critic_lr]\n")
    data = with_our_names(data_of({"lr": (np.array([1]), np.array([0.5]))}), load_tag_mapping(file))
    assert data.series.names() == ["agent/actor_lr", "agent/critic_lr"]


def test_a_mapping_file_takes_precedence_over_the_built_in_names(tmp_path: Path) -> None:
    file = mapping_file(tmp_path, "losses/qf_loss: train/critic_loss\n")
    data = with_our_names(data_of(cleanrl()), load_tag_mapping(file))
    np.testing.assert_array_equal(data.series[tags.CRITIC_LOSS].values, cleanrl()["losses/qf_loss"][1])
    assert tags.ACTOR_LOSS in data.series


def test_mapped_tags_that_the_run_did_not_log_are_noted(tmp_path: Path) -> None:
    file = mapping_file(tmp_path, "Loss/qf1: train/q1_value\nLoss/typo: train/q2_value\n")
    data = with_our_names(data_of({"Loss/qf1": (np.array([1]), np.array([1.0]))}), load_tag_mapping(file))
    assert data.notes[-1] == "names.yml also maps tags that this run did not log: Loss/typo"


def test_a_tag_of_this_package_may_be_scaled_in_place(tmp_path: Path) -> None:
    file = mapping_file(tmp_path, "train/critic_loss: {tag: train/critic_loss, scale: 2}\n")
    run = {tags.CRITIC_LOSS: (np.array([1]), np.array([3.0]))}
    assert with_our_names(data_of(run), load_tag_mapping(file)).series[tags.CRITIC_LOSS].values.tolist() == [6.0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "a: train/q1_value\nb: train/q1_value\n",
            "logged a and b, and the --tags file names.yml maps each of them to train/q1_value. In names.yml, keep",
        ),
        (
            "a: train/q2_value\n",
            "logged train/q2_value itself, and names.yml also maps a to it. Remove a from names.yml",
        ),
    ],
)
def test_two_names_that_would_become_one_are_refused(text: str, words: str, tmp_path: Path) -> None:
    run = {name: (np.array([1]), np.array([1.0])) for name in ("a", "b", tags.Q2_VALUE)}
    mapping = load_tag_mapping(mapping_file(tmp_path, text))
    with pytest.raises(UnreadableRunError, match=re.escape(words)):
        with_our_names(data_of(run), mapping)


def test_two_names_for_one_tag_are_allowed_if_a_run_logs_only_one(tmp_path: Path) -> None:
    mapping = load_tag_mapping(mapping_file(tmp_path, "a: train/q1_value\nb: train/q1_value\n"))
    data = with_our_names(data_of({"b": (np.array([1]), np.array([1.0]))}), mapping)
    assert data.series.names() == [tags.Q1_VALUE]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: train/q1_valeu", "'train/q1_valeu' is not a tag of this package; the nearest is 'train/q1_value'"),
        ("a: {tag: train/q1_value, scale: 0}", "expected a finite number that is not 0"),
        ("a: {tag: train/q1_value, scale: .inf}", "expected a finite number"),
        ("a: {tag: train/q1_value, factor: 2}", "expected a tag of this package"),
        ("a: 3", "expected a tag of this package"),
        ("- a", "expected a mapping"),
        ("a: b: c", "not valid YAML"),
        ("rollout/ep_len_mean: train/episode_length", "running mean over up to 100 episodes"),
        ("a: !!python/object/apply:os.system [touch pwned]", "Only plain values are read"),
    ],
)
def test_an_invalid_mapping_file_gives_one_line_and_exit_code_2_before_any_work(
    report: Report, tmp_path: Path, text: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_events(healthy(), tmp_path / "run")
    assert report(tmp_path / "run", "--tags", mapping_file(tmp_path, text)) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert "names.yml" in line
    assert reason in line
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "pwned").exists()


def test_a_missing_file_gives_exit_code_2(report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_events(healthy(), tmp_path / "run")
    assert report(tmp_path / "run", "--tags", tmp_path / "absent.yml") == 2
    assert "absent.yml: No such file" in capsys.readouterr().err


def test_a_clash_in_one_run_leaves_the_others(report: Report, tmp_path: Path) -> None:
    run = healthy()
    write_events({**run, "q": run[tags.Q1_VALUE]}, tmp_path / "runs" / "a")
    write_events(run, tmp_path / "runs" / "b")
    file = mapping_file(tmp_path, "q: train/q1_value\n")
    assert report(tmp_path / "runs", "--tags", file) == 2
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [r["run"]["name"] for r in found["runs"]] == ["runs/b"]
    assert "logged train/q1_value itself, and names.yml also maps q to it" in found["unreadable"][0]


def test_a_value_that_overflows_by_its_factor_is_infinite_and_not_lost(tmp_path: Path) -> None:
    mapping = load_tag_mapping(mapping_file(tmp_path, "a: {tag: train/q1_value, scale: 1.0e+300}\n"))
    data = with_our_names(data_of({"a": (np.array([1, 2]), np.array([1e300, np.nan]))}), mapping)
    values = data.series[tags.Q1_VALUE].values
    assert np.isinf(values[0])
    assert np.isnan(values[1])


def own_code() -> Values:
    """Return a run of own code: losses over updates, returns over episodes, and names that no library has."""
    updates, episodes = np.arange(0, 5000, 10), np.arange(200)
    return {
        "Loss/critic loss 1": (updates, np.ones(500)),
        "Loss/critic loss 2": (updates, np.ones(500)),
        "Loss/pi": (updates, np.ones(500)),
        "Loss/policy": (updates, -np.ones(500)),
        "QValues/Q1": (updates, np.ones(500)),
        "QValues/Q2": (updates, np.ones(500)),
        "Episode/Reward": (episodes, np.arange(200.0)),
        "Episode/Length": (episodes, np.full(200, 50.0)),
        "Episode Length (s)": (episodes, np.full(200, 2.5)),
        "misc: [a], *b*": (updates, np.ones(500)),
        "time/fps": (updates, np.ones(500)),
    }


def test_mapping_to_start_from_lists_every_tag_and_guesses_targets_by_name(tmp_path: Path) -> None:
    data = RunData(Path("run"), as_series(own_code()), (), 1, axis="episodes")
    path = mapping_file(tmp_path, mapping_to_start_from(data, "run"))
    assert all(name in path.read_text() for name in own_code())
    targets = {theirs: ours[0].tag for theirs, ours in load_tag_mapping(path).targets.items()}
    assert targets == {
        "Loss/critic loss 1": tags.CRITIC_1_LOSS,
        "Loss/critic loss 2": tags.CRITIC_2_LOSS,
        "Loss/pi": tags.ACTOR_LOSS,
        "QValues/Q1": tags.Q1_VALUE,
        "QValues/Q2": tags.Q2_VALUE,
        "Episode/Length": tags.EPISODE_LENGTH,
    }
    assert "# Episode/Reward: already read as a return" in path.read_text()
    assert with_our_names(data, load_tag_mapping(path)).series[tags.Q2_VALUE].values[0] == 1.0


def test_every_name_can_be_a_key_of_the_written_file(tmp_path: Path) -> None:
    names = ["\U0001f697/critic loss", "Fahrt/Zürich critic loss", "on", "null", "yes", 'a"b', "a\\b", "1e5"]
    data = data_of({name: (np.array([1, 2]), np.array([1.0, 1.0])) for name in names})
    lines = mapping_to_start_from(data, "run").splitlines()[3:]
    keys = [line.removeprefix("# ").rpartition(": ")[0] for line in lines]
    path = mapping_file(tmp_path, "".join(f"{key}: train/actor_loss\n" for key in keys))
    assert set(load_tag_mapping(path).targets) == set(names)


def test_a_file_of_comments_alone_is_refused_with_what_it_should_hold(tmp_path: Path) -> None:
    path = mapping_file(tmp_path, mapping_to_start_from(data_of(cleanrl()), "run"))
    with pytest.raises(ValueError, match="every line is a comment; expected a line 'THEIRS: OURS'"):
        load_tag_mapping(path)


def test_the_command_writes_the_file_and_reads_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_events(own_code(), tmp_path / "run")
    code = main(["report", "run", "--format", "json", "--write-tags", "tags.yml"])
    assert "tags.yml" in capsys.readouterr().out
    assert main(["report", "run", "--format", "json", "--tags", "tags.yml"]) == code
    assert "Loss/pi as train/actor_loss" in (tmp_path / "report.json").read_text()
    assert main(["report", "run", "--write-tags", "tags.yml"]) == 2
    assert "the file already exists" in capsys.readouterr().err
    assert main(["report", "run", "--write-tags", "none/tags.yml"]) == 2
    assert "there is no folder none; create it" in capsys.readouterr().err


def test_a_tag_may_be_mapped_to_a_tag_of_stable_baselines3(tmp_path: Path) -> None:
    path = mapping_file(tmp_path, "my_score: rollout/ep_rew_mean")
    assert load_tag_mapping(path).targets["my_score"][0].tag == "rollout/ep_rew_mean"
