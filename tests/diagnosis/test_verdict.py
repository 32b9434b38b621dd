from __future__ import annotations

import itertools

import pytest

from sb3_visual_td3.diagnosis.verdict import (
    CriterionResult,
    ExitCode,
    Status,
    Verdict,
    decide,
    worst,
    worst_verdict,
)

P, F, U, N = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.NOT_APPLICABLE


def result(status: Status, *, blocking: bool = True) -> CriterionResult:
    return CriterionResult("id", "title", status, blocking, None, None, "source")


@pytest.mark.parametrize(
    ("blocking", "informing", "verdict"),
    [
        ([P], [], Verdict.GO),
        ([P, P], [F, U, N], Verdict.GO),
        ([P, N], [], Verdict.GO),
        ([F], [], Verdict.NO_GO),
        ([P, F], [P], Verdict.NO_GO),
        ([F, U], [], Verdict.NO_GO),
        ([U], [P], Verdict.INSUFFICIENT),
        ([P, U], [], Verdict.INSUFFICIENT),
        ([P, U], [F], Verdict.INSUFFICIENT),
        ([N], [P], Verdict.INSUFFICIENT),
        ([], [P], Verdict.INSUFFICIENT),
        ([], [], Verdict.INSUFFICIENT),
    ],
)
def test_blocking_criteria_set_the_verdict(blocking: list[Status], informing: list[Status], verdict: Verdict) -> None:
    results = [result(s) for s in blocking] + [result(s, blocking=False) for s in informing]
    for order in itertools.permutations(results):
        assert decide(order) is verdict


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0], 0), ([0, 3], 3), ([3, 1, 0], 1), ([1, 2], 2), ([2, 4, 1], 4), ([0, 0], 0), ([], 2)],
)
def test_several_runs_give_the_worst_exit_code(codes: list[int], code: int) -> None:
    assert worst(ExitCode(c) for c in codes) == code


def test_the_worst_verdict_prefers_no_go_and_then_insufficient() -> None:
    assert worst_verdict([Verdict.GO, Verdict.INSUFFICIENT, Verdict.NO_GO]) is Verdict.NO_GO
    assert worst_verdict([Verdict.GO, Verdict.INSUFFICIENT]) is Verdict.INSUFFICIENT
    assert worst_verdict([Verdict.GO]) is Verdict.GO
    assert worst_verdict([]) is Verdict.INSUFFICIENT
