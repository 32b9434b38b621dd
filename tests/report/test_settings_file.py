"""Settings are data: no file may run anything, fill the memory or end the report with a traceback."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import yaml

from sb3_visual_td3.report.settings_file import MAX_BYTES, parse_mapping, read_mapping


def test_what_rl_zoo_dumps_comes_back(tmp_path: Path) -> None:
    saved = OrderedDict(
        [
            ("batch_size", 256),
            ("learning_rate", "lin_1e-3"),
            ("normalize", {"norm_reward": True}),
            ("train_freq", (4, "step")),
        ]
    )
    (tmp_path / "config.yml").write_text(yaml.dump(saved))
    assert "!!python/object/apply:collections.OrderedDict" in (tmp_path / "config.yml").read_text()
    read = read_mapping(tmp_path / "config.yml")
    assert read == {**saved, "train_freq": [4, "step"]}


def test_an_empty_ordered_dict_is_an_empty_mapping() -> None:
    assert parse_mapping(yaml.dump(OrderedDict()), "config.yml") == {}


RUNS_CODE = [
    "!!python/object/apply:os.system ['touch {}']",
    "!!python/object/apply:subprocess.check_call [['touch', '{}']]",
    "!!python/object/apply:builtins.eval [\"open('{}', 'w')\"]",
    "!!python/object/new:os.system ['touch {}']",
    "!!python/name:os.system",
    "!!python/module:os",
    "!!python/object/apply:collections.OrderedDict [!!python/object/apply:os.system ['touch {}']]",
    "!!python/object/apply:collections.OrderedDict [[[a, !!python/object/apply:os.system ['touch {}']]]]",
    "!!python/tuple [!!python/object/apply:os.system ['touch {}']]",
    "!!python/object/apply:collections.Counter [[1, 2]]",
    "!!python/object/apply:numpy._core.multiarray.scalar [1, 2]",
]


@pytest.mark.parametrize("value", RUNS_CODE)
@pytest.mark.parametrize("where", ["{}", "a: {}", "a:\n- 1\n- {}"])
def test_a_tag_that_would_run_code_is_refused_and_nothing_runs(value: str, where: str, tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    with pytest.raises(ValueError, match="refused") as refused:
        parse_mapping(where.format(value.format(mark)), "config.yml")
    assert not mark.exists()
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("config.yml: ")


def test_the_unsafe_loader_would_have_run_it(tmp_path: Path) -> None:
    mark = tmp_path / "pwned"
    yaml.load(RUNS_CODE[0].format(mark), Loader=yaml.UnsafeLoader)
    assert mark.exists()


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:collections.OrderedDict [[[a, 1]], 2]",
        "!!python/object/apply:collections.OrderedDict [[1, 2]]",
        "!!python/object/apply:collections.OrderedDict {args: [[[a, 1]]]}",
        "!!python/object/apply:collections.OrderedDict [[[[a], 1]]]",
        "[1, 2]",
        "text",
        "",
        "a: [",
        "a: *b",
        "? [1, 2]\n: 3",
        "a: " + "[" * 5000,
        "a: &x [*x]",
        "&x {a: *x}",
        "base: &b {tau: 1}\nother: {<<: *b}",
    ],
)
def test_what_is_no_mapping_of_plain_values_is_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^config\.yml: ") as refused:
        parse_mapping(text, "config.yml")
    assert "\n" not in str(refused.value)


def test_a_few_lines_that_stand_for_billions_of_values_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ValueError, match="more than 10,000 values"):
        parse_mapping("\n".join(lines), "bomb.yml")


def test_json_is_read_by_its_name_and_its_faults_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    path.write_text('{"tau": 0.005, "train_freq": [1, "step"]}')
    assert read_mapping(path) == {"tau": 0.005, "train_freq": [1, "step"]}
    for text in ("{", "[1]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"h\.json: "):
            read_mapping(path)


def test_numbers_without_end_and_strange_keys_become_plain(tmp_path: Path) -> None:
    read = parse_mapping(f"1: 0x{'f' * 400}\n2020-01-01: 2020-01-01\nx: !!set {{a}}\n", "h.yml")
    assert read == {"1": float("inf"), "2020-01-01": "2020-01-01", "x": ["a"]}


def test_a_large_or_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.yml"
    path.write_bytes(b"a: 1\n" + b"#" * MAX_BYTES)
    with pytest.raises(ValueError, match="too many"):
        read_mapping(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_mapping(path)
