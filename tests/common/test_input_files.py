"""Settings are data: no file may run anything, fill the memory or end the report with a traceback."""

from __future__ import annotations

import os
import socket
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from sb3_visual_td3.common.input_files import (
    MAX_BYTES,
    MAX_CHARACTERS,
    NotRegularFileError,
    UniqueKeyLoader,
    load_mapping,
    open_regular,
    parse_mapping,
    python_literal,
    read_mapping,
    read_text,
    require_regular,
    require_type,
)


def test_yaml_of_rl_zoo_is_read(tmp_path: Path) -> None:
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


def test_the_unsafe_yaml_loader_executes_code_in_a_tag(tmp_path: Path) -> None:
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
def test_invalid_yaml_is_refused_with_a_one_line_message(text: str) -> None:
    with pytest.raises(ValueError, match=r"^config\.yml: ") as refused:
        parse_mapping(text, "config.yml")
    assert "\n" not in str(refused.value)


def test_a_few_lines_that_expand_to_billions_of_values_are_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ValueError, match="more than 10,000 values"):
        parse_mapping("\n".join(lines), "bomb.yml")


def test_json_is_recognised_by_its_suffix_and_invalid_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.json"
    path.write_text('{"tau": 0.005, "train_freq": [1, "step"]}')
    assert read_mapping(path) == {"tau": 0.005, "train_freq": [1, "step"]}
    for text in ("{", "[1]", "[" * 100_000, '{"a": ' + "9" * 5000 + "}"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"h\.json: "):
            read_mapping(path)


def test_huge_integers_become_inf_and_unusual_keys_become_strings(tmp_path: Path) -> None:
    read = parse_mapping(f"1: 0x{'f' * 400}\n2020-01-01: 2020-01-01\nx: !!set {{a}}\n", "h.yml")
    assert read == {"1": float("inf"), "2020-01-01": "2020-01-01", "x": ["a"]}


def test_a_large_or_binary_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.yml"
    path.write_bytes(b"a: 1\n" + b"#" * MAX_BYTES)
    with pytest.raises(ValueError, match="the limit for a settings file"):
        read_mapping(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text file"):
        read_mapping(path)


def make_socket(path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()


OTHER_KINDS: dict[str, Callable[[Path], object]] = {
    "a FIFO": os.mkfifo,
    "a link to a FIFO": lambda path: (os.mkfifo(path.with_name("fifo")), path.symlink_to("fifo")),
    "a socket": make_socket,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
}


@pytest.mark.parametrize("kind", OTHER_KINDS)
@pytest.mark.parametrize("read", [open_regular, require_regular, read_text, read_mapping])
def test_a_path_that_is_not_a_regular_file_is_refused_without_blocking(
    tmp_path: Path, kind: str, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the name of a socket has at most 107 characters
    path = Path("in.yml")
    OTHER_KINDS[kind](path)
    with pytest.raises(OSError, match=r"Is a directory|expected a regular file") as refused:
        read(path)
    assert refused.value.filename == "in.yml"
    assert isinstance(refused.value, NotRegularFileError if kind != "a folder" else IsADirectoryError)


def test_a_file_that_is_replaced_by_a_fifo_before_it_is_opened_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "in.yml")
    (tmp_path / "before").touch()
    before = os.stat(tmp_path / "before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda _path: before)
        with pytest.raises(NotRegularFileError, match="a FIFO"):
            open_regular(tmp_path / "in.yml")


def test_a_regular_file_can_be_opened_for_reading_and_writing_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "b").symlink_to("a")
    with open_regular(tmp_path / "b", os.O_RDWR) as stream:
        assert stream.read() == b"one"
        stream.truncate(2)
    with open_regular(tmp_path / "a") as stream:
        assert stream.read() == b"on"
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "c")


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc here")
def test_the_size_limit_applies_to_a_file_that_reports_size_0() -> None:
    assert os.stat("/proc/self/maps").st_size == 0
    assert read_text("/proc/self/maps").count("\n") > 5
    with pytest.raises(ValueError, match="larger than 100 bytes"):
        read_text("/proc/self/maps", max_bytes=100)


def test_half_a_surrogate_pair_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text('{"a\\ud800": "b\\udfff", "c": "\\ud83d\\ude97"}')
    assert read_mapping(tmp_path / "h.json") == {"a?": "b?", "c": "\U0001f697"}


def test_too_many_or_too_deeply_nested_values_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^h\.yml: refused: more than 10,000 values"):
        parse_mapping("a:\n" + "- 1\n" * 20_000, "h.yml")
    with pytest.raises(ValueError, match=r"^h\.json: 'many': more than 10,000 values"):
        parse_mapping('{"one": 1, "many": [' + "1," * 20_000 + "1]}", "h.json", is_json=True)
    with pytest.raises(ValueError, match=r"^h\.json: 'deep': nested deeper than 16"):
        parse_mapping('{"one": 1, "deep": ' + "[" * 100 + "]" * 100 + "}", "h.json", is_json=True)


def test_a_bool_is_not_an_int_and_long_values_are_cut_in_messages() -> None:
    require_type(True, (bool,), "f: k")
    require_type(None, (int, type(None)), "f: k")
    with pytest.raises(ValueError, match=r"^f: k is True; expected int or none$"):
        require_type(True, (int, type(None)), "f: k")
    with pytest.raises(ValueError, match=r"^f: k is '.{76}\.\.\.; expected int$"):
        require_type("x" * 10**6, (int,), "f: k")


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("dict(net_arch=[400, 300])", {"net_arch": [400, 300]}),
        (" {'norm_obs': False, 'norm_reward': True} ", {"norm_obs": False, "norm_reward": True}),
        ("dict(a=dict(pi=[1], qf=[2, 3]), b=None)", {"a": {"pi": [1], "qf": [2, 3]}, "b": None}),
        ("dict()", {}),
        ("dict(net_arch=[dict(pi=[64])])", {"net_arch": [{"pi": [64]}]}),
        ("{'a': (dict(b=1), {2: [3]})}", {"a": ({"b": 1}, {2: [3]})}),
        ("(1, 'step')", (1, "step")),
        ("-2.5e-3", -0.0025),
    ],
)
def test_a_python_literal_is_read_without_executing_it(code: str, value: object) -> None:
    assert python_literal(code) == value
    assert eval(code.strip()) == value  # the same as what rl-zoo's eval makes of it


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').system('true')",
        "dict(activation_fn=nn.ReLU)",
        "dict([('a', 1)])",
        "dict(**{'a': 1})",
        "{**{'a': 1}}",
        "[dict(a=print(1))]",
        "{dict(a=1): 2}",
        "dict(a=dict(b=open('x')))",
        "print(1)",
        "1 +",
        "",
        "[" * 5_000,
        "9" * (MAX_CHARACTERS + 1),
    ],
)
def test_an_expression_that_is_not_a_literal_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match=r"literal") as refused:
        python_literal(code)
    assert " object at 0x" not in str(refused.value)


def test_a_literal_may_contain_the_names_that_the_caller_knows() -> None:
    names = {"nn.ReLU": "the class", "Buffer": 1}
    assert python_literal("dict(a=[nn.ReLU], b=Buffer)", names) == {"a": ["the class"], "b": 1}
    with pytest.raises(ValueError, match=r"^not a literal: 'nn\.Tanh' cannot be evaluated; expected numbers"):
        python_literal("dict(a=nn.ReLU, b=nn.Tanh)", names)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: a is given twice"),
        ("x:\n  a: 1\n  'a': 1\n", "line 3: a is given twice"),
        ("x: {1: 2, 1: 3}\n", "line 1: 1 is given twice"),
    ],
)
def test_a_key_that_is_given_twice_is_refused_with_its_line(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_mapping(text, "a.yml")
    with pytest.raises(ValueError, match=words):
        load_mapping(text, "a.yml", loader=UniqueKeyLoader)


def test_a_value_of_a_merge_key_may_be_overridden() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3}\nc:\n  <<: *a\n  <<: *b\n  x: 5\nx: 1\n"
    assert load_mapping(text, "a.yml", loader=UniqueKeyLoader) == yaml.safe_load(text)
