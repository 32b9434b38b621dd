from __future__ import annotations

import pytest

from sb3_visual_td3.common.literals import MAX_CHARACTERS, python_literal


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("dict(net_arch=[400, 300])", {"net_arch": [400, 300]}),
        (" {'norm_obs': False, 'norm_reward': True} ", {"norm_obs": False, "norm_reward": True}),
        ("dict(a=dict(pi=[1], qf=[2, 3]), b=None)", {"a": {"pi": [1], "qf": [2, 3]}, "b": None}),
        ("dict()", {}),
        ("(1, 'step')", (1, "step")),
        ("-2.5e-3", -0.0025),
    ],
)
def test_what_python_would_make_of_it_is_read_without_running_it(code: str, value: object) -> None:
    assert python_literal(code) == value
    assert eval(code.strip()) == value  # the same as what rl-zoo's eval makes of it


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('true')",
        "dict(activation_fn=nn.ReLU)",
        "dict([('a', 1)])",
        "dict(**{'a': 1})",
        "dict(a=dict(b=open('x')))",
        "print(1)",
        "1 +",
        "",
        "[" * 5_000,
        "9" * (MAX_CHARACTERS + 1),
    ],
)
def test_everything_else_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match=r"literal|malformed"):
        python_literal(code)
