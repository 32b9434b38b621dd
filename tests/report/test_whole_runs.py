"""The results of criteria and rules on whole runs."""

from __future__ import annotations

import numpy as np
import pytest

from sb3_visual_td3.common import tags
from sb3_visual_td3.diagnosis.criteria import judge, load_criteria
from sb3_visual_td3.diagnosis.ranking import LIKELY_FROM, diagnose
from sb3_visual_td3.diagnosis.series import SeriesSet
from sb3_visual_td3.diagnosis.verdict import CriterionResult, Status, Verdict, decide

from .synthetic_runs import Values, as_series, dead_policy, foreign, healthy, leaking, with_nan


def judged(data: SeriesSet) -> dict[str, CriterionResult]:
    return {result.id: result for result in judge(load_criteria(), data)}


def verdict(run: Values) -> Verdict:
    return decide(judged(as_series(run)).values())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("shared_encoder", [False, True])
def test_a_healthy_run_is_go_and_has_no_likely_diagnosis(seed: int, shared_encoder: bool) -> None:
    run = healthy(seed, shared_encoder=shared_encoder)
    assert verdict(run) is Verdict.GO
    assert [d.id for d in diagnose(as_series(run)) if d.confidence >= LIKELY_FROM] == []


@pytest.mark.parametrize("last_step", [1600, 2400, 2600, 10_000, 30_000])
def test_a_healthy_run_of_any_length_is_never_no_go(last_step: int) -> None:
    run = healthy(last_step=last_step)
    assert verdict(run) is not Verdict.NO_GO
    assert [d for d in diagnose(as_series(run)) if d.confidence >= LIKELY_FROM] == []


def test_actor_encoder_criteria_do_not_apply_to_a_shared_encoder() -> None:
    results = judged(as_series(healthy(shared_encoder=True)))
    assert results["actor_cnn_norm_mean"].status is Status.NOT_APPLICABLE
    assert results["actor_cnn_norm_no_go"].status is Status.NOT_APPLICABLE
    without_flag = healthy(shared_encoder=True)
    del without_flag[tags.ENCODER_IS_SHARED]
    assert judged(as_series(without_flag))["actor_cnn_norm_mean"].status is Status.UNKNOWN


def test_a_dead_policy_with_a_normal_critic_is_no_go_and_diagnosed_as_saturation() -> None:
    run = dead_policy()
    results = judged(as_series(run))
    assert decide(results.values()) is Verdict.NO_GO
    assert results["policy_is_alive"].status is Status.FAIL
    assert results["policy_drives"].status is Status.FAIL
    assert results["critic_loss_mean"].status is Status.PASS
    found = diagnose(as_series(run))
    assert found[0].id == "actor_saturation"
    assert found[0].confidence >= 0.9
    roles = {d.id: (d.role, d.consequence_of) for d in found}
    assert roles["vanishing_actor_gradient"] == ("consequence", "actor_saturation")


@pytest.mark.parametrize("seed", range(5))
def test_feature_leak_is_diagnosed_first_and_gradient_explosion_as_a_consequence(seed: int) -> None:
    data = as_series(leaking(seed))
    assert decide(judged(data).values()) is Verdict.NO_GO
    found = diagnose(data)
    assert found[0].id == "feature_leak"
    assert found[0].role == "cause"
    assert "critic.q1(critic_encoder(s), actor(s))" in found[0].remedy
    roles = {d.id: d.role for d in found}
    assert roles["gradient_explosion"] == "consequence"
    assert roles["episode_collapse"] == "consequence"
    assert "clipping_masks_divergence" not in roles


def test_feature_leak_is_still_diagnosed_first_if_gradient_norms_are_clipped() -> None:
    found = diagnose(as_series(leaking(clipped_norms=True)))
    assert [d.id for d in found[:2]] == ["feature_leak", "clipping_masks_divergence"]
    assert found[1].role == "blind_spot"


def test_a_leak_is_found_without_q_values_with_less_confidence() -> None:
    run = leaking()
    surely = diagnose(as_series(run))[0].confidence
    for tag in (tags.Q1_VALUE, tags.Q2_VALUE, tags.TARGET_Q_MEAN, tags.POLICY_Q_VALUE):
        del run[tag]
    found = diagnose(as_series(run))[0]
    assert found.id == "feature_leak"
    assert 0.5 <= found.confidence < surely


def test_a_shared_encoder_cannot_leak() -> None:
    run = leaking()
    run[tags.ENCODER_IS_SHARED] = (np.array([100]), np.array([1.0]))
    assert "feature_leak" not in {d.id for d in diagnose(as_series(run))}


def test_a_nan_is_no_go_and_names_its_first_step() -> None:
    data = as_series(with_nan())
    assert decide(judged(data).values()) is Verdict.NO_GO
    assert judged(data)["no_nan_or_inf"].value == 11
    (found,) = diagnose(data)
    assert (found.id, found.first_step, found.evidence[0].tag) == ("non_finite", 4000, tags.CRITIC_LOSS)


def test_a_run_of_another_library_is_insufficient_although_its_critic_loss_passes() -> None:
    results = judged(as_series(foreign()))
    assert decide(results.values()) is Verdict.INSUFFICIENT
    assert results["actor_loss_stable"].status is Status.UNKNOWN
    assert results["critic_loss_mean"].status is Status.PASS


def test_q_beyond_the_bound_of_the_rewards_is_overestimation() -> None:
    run = healthy()
    steps, q = run[tags.Q1_VALUE]
    for tag in (tags.Q1_VALUE, tags.Q2_VALUE):
        run[tag] = (steps, q * np.linspace(1, 40, steps.size))
    data = as_series(run)
    assert judged(data)["q_within_bound"].status is Status.FAIL
    assert diagnose(data)[0].id == "critic_overestimation"


def test_critics_that_diverge_are_reported() -> None:
    run = healthy()
    steps, q = run[tags.Q1_VALUE]
    run[tags.Q2_VALUE] = (steps, q * np.linspace(1, 0.2, steps.size))
    data = as_series(run)
    assert judged(data)["twin_critics_synchronised"].status is Status.FAIL
    assert [d.id for d in diagnose(data)] == ["twin_critic_desync"]


def test_scale_dependent_criteria_do_not_block_with_normalised_rewards() -> None:
    run = healthy()
    steps, loss = run[tags.CRITIC_LOSS]
    run[tags.CRITIC_LOSS] = (steps, loss * 100)
    assert verdict(run) is Verdict.NO_GO
    run[tags.REWARD_IS_NORMALIZED] = (steps, np.ones(steps.size))
    result = judged(as_series(run))["critic_loss_mean"]
    assert (result.status, result.blocking) == (Status.FAIL, False)
    assert verdict(run) is Verdict.GO


@pytest.mark.parametrize("baseline", [tags.EVAL_RANDOM_DISTANCE, tags.EVAL_BRAKE_DISTANCE])
def test_a_policy_must_beat_each_baseline_and_a_missing_one_gives_unknown(baseline: str) -> None:
    run = healthy()
    assert judged(as_series(run))["policy_drives"].status is Status.PASS
    evals, distances_m = run[tags.EVAL_DISTANCE]
    run[baseline] = (evals, np.full(evals.size, distances_m[-1] + 1.0))
    assert judged(as_series(run))["policy_drives"].status is Status.FAIL
    del run[baseline]
    assert judged(as_series(run))["policy_drives"].status is Status.UNKNOWN


@pytest.mark.parametrize("make", [leaking, dead_policy, with_nan])
def test_no_single_missing_tag_turns_no_go_into_go(make: object) -> None:
    run = make()  # type: ignore[operator]
    for tag in run:
        assert verdict({name: points for name, points in run.items() if name != tag}) is not Verdict.GO, tag
