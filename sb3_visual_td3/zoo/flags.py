"""What we change in rl-zoo's command lines, for as long as a command runs.

All of it was seen in rl_zoo3 2.9, and can go when a later version does the same:

- :func:`usage_errors`: a mistake is one line, not the usage of all flags
- :func:`all_choices`: ``--vec-env`` has its choices written out, without ``ray``, and there is no ``--end-on``
- :func:`environments_found`: ``--gym-packages`` is known to train and enjoy alone, and ``--env`` is not checked
- :func:`store_pairs`: every KEY:VALUE is run as Python code, so that a plain word, such as ``lin_1e-3`` or ``Town02``,
  ends in a NameError unless it is quoted twice; here a value that is not Python is what it would be in a
  hyperparameter file
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import rl_zoo3.utils
import yaml

from sb3_visual_td3.common.errors import UsageError
from sb3_visual_td3.zoo.environments import add_packages_argument, check_environment, import_packages
from sb3_visual_td3.zoo.hyperparameters import END_ON_HELP, EXIT_CODES, VEC_ENVS

_DATA_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set)
_MEANT_AS_CODE = (ast.Call, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.JoinedStr)


_ABSENT = object()
_LARGEST_SEED = 2**32 - 1


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give a module or class another attribute, for as long as one command of rl_zoo3 runs.

    :param owner: the module or class
    :param name: of the attribute, which need not be there
    :param value: what it is meanwhile
    """
    before = vars(owner).get(name, _ABSENT)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if before is _ABSENT:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


@contextmanager
def command_line(command: str, arguments: Sequence[str]) -> Iterator[None]:
    """Have rl_zoo3 read these arguments instead of the process's.

    :param command: our subcommand, which ``--help`` shows
    :param arguments: its flags
    """
    own_argv, sys.argv = sys.argv, [f"visual-td3 {command}", *arguments]
    try:
        with usage_errors():
            yield
    finally:
        sys.argv = own_argv


@contextmanager
def usage_errors() -> Iterator[None]:
    """Have argparse raise where it would print the usage of all of rl-zoo's flags and end the process."""

    def refuse(self: argparse.ArgumentParser, message: str) -> NoReturn:  # noqa: ARG001 - a method of the parser
        raise UsageError(f"{message}; --help shows the flags")

    with replaced(argparse.ArgumentParser, "error", refuse):
        yield


@contextmanager
def all_choices() -> Iterator[None]:
    """Have rl-zoo's parser take every name for ``--vec-env``, and the one flag of ours, ``--end-on``."""
    add = argparse.ArgumentParser.add_argument

    def add_argument(self: argparse.ArgumentParser, *names: Any, **kwargs: Any) -> argparse.Action:
        if "--vec-env" in names:
            kwargs["choices"] = list(VEC_ENVS)
            add(self, "--end-on", nargs="+", metavar="SIGNAL", help=END_ON_HELP)
            self.epilog = EXIT_CODES
        return add(self, *names, **kwargs)

    with replaced(argparse.ArgumentParser, "add_argument", add_argument):
        yield


def check_seed(seed: int | None) -> None:
    """Refuse a seed that NumPy does not take; a negative one has rl-zoo draw one.

    :param seed: of the command line, or of a run's description
    :raises UsageError: if it is too large
    """
    if seed is not None and seed > _LARGEST_SEED:
        raise UsageError(
            f"--seed {seed}: expected a number up to {_LARGEST_SEED}, which is the largest of NumPy's seeds"
        )


@contextmanager
def environments_found() -> Iterator[None]:
    """Have rl_zoo3's commands take ``--gym-packages``, and look for ``--env`` before anything else is done."""
    stock: Callable[..., argparse.Namespace] = argparse.ArgumentParser.parse_args

    def parse_args(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> argparse.Namespace:
        with contextlib.suppress(argparse.ArgumentError):  # train and enjoy have it
            add_packages_argument(self)
        found = stock(self, *args, **kwargs)
        check_seed(getattr(found, "seed", None))
        import_packages(found.gym_packages)
        if hasattr(found, "env"):
            check_environment(getattr(found.env, "gym_id", found.env), found.gym_packages)
        return found

    with replaced(argparse.ArgumentParser, "parse_args", parse_args):
        yield


class _Loader(yaml.SafeLoader):
    """Reads ``1e-3`` as a number, which YAML 1.1 takes for a string because it has no point."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def store_pairs(
    self: argparse.Action,
    parser: argparse.ArgumentParser,  # noqa: ARG001 - argparse calls an action with it
    namespace: argparse.Namespace,
    values: Sequence[str],
    option_string: str | None = None,
) -> None:
    """Store KEY:VALUE pairs as a dict; this takes the place of ``rl_zoo3.utils.StoreDict.__call__``.

    :param self: the action, which knows where to store them
    :param parser: the parser that calls it
    :param namespace: where they are stored
    :param values: the pairs as they were typed
    :param option_string: the flag as it was typed
    :raises UsageError: if one is not a pair, or its value is code that fails
    """
    flag = option_string or self.dest
    pairs: dict[str, Any] = {}
    for pair in values:
        key, colon, text = pair.partition(":")
        if not key.strip() or not colon:
            raise UsageError(f"{flag} {pair}: expected KEY:VALUE, such as gamma:0.98 or town:Town02")
        if not text.strip():
            raise UsageError(f"{flag} {pair}: there is no value after the colon; an empty string is {key}:\"''\"")
        pairs[key] = read_value(text, f"{flag} {key}")
    setattr(namespace, self.dest, pairs)


def read_value(text: str, where: str = "the value") -> Any:
    """Read a value that was typed on the command line.

    In this order it is a Python literal (``0.01``, ``None``, ``[64, 64]``, ``'quoted'``), Python code that rl_zoo3
    can run (``dict(activation_fn=nn.ReLU)``, ``2**18``), a mapping or list as YAML writes it (``{n: 3, mode: fast}``),
    a word that means true, false or nothing in YAML, or else the text itself.

    :param text: as it was typed
    :param where: what to call it in a complaint
    :return: the value
    :raises UsageError: if it is code that fails, such as ``dict(net_arch=)`` or ``1/0``
    """
    text = text.strip()
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    is_code, value = _run_code(text, where)
    return value if is_code else _as_in_a_file(text)


def _run_code(text: str, where: str) -> tuple[bool, Any]:
    """:return: whether the text is code that rl_zoo3 can run, and what it evaluates to"""
    try:
        expression = ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        if re.match(r"dict\s*\(", text):
            raise UsageError(f"{where}: {text!r} is not valid Python ({error})") from error
        return False, None
    names = vars(rl_zoo3.utils)
    if isinstance(expression, ast.Name):
        # A word is a word, also where Python has a function of that name: "min", "all", "id".
        known = names.get(text, next((each for each in _DATA_TYPES if each.__name__ == text), None))
        return isinstance(known, type), known
    try:
        return True, eval(compile(ast.Expression(expression), where, "eval"), dict(names))
    except Exception as error:
        if _is_meant_as_code(expression, names):
            raise UsageError(f"{where}: {text!r} cannot be evaluated: {error}") from error
        return False, None


def _is_meant_as_code(expression: ast.expr, names: dict[str, Any]) -> bool:
    """Tell code that fails from text that happens to parse, such as ``held-out``, ``map.xml`` or ``lin(1e-3)``."""
    nodes = list(ast.walk(expression))
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    if not used:  # numbers alone, such as 1/0
        return True
    code = [node for node in nodes if isinstance(node, _MEANT_AS_CODE)]
    builtin = names["__builtins__"]
    called = [node.func for node in code if isinstance(node, ast.Call)]
    roots = [each for func in called for each in ast.walk(func) if isinstance(each, ast.Name)]
    return any(root.id in names or root.id in builtin for root in roots) or len(code) > len(called)


def _as_in_a_file(text: str) -> Any:
    """:return: what the text would be in a hyperparameter file, numbers and dates aside: those are Python's"""
    try:
        value = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    if isinstance(value, dict | list) and text[0] in "{[":
        return value
    if re.fullmatch(r"[-+]?\.?(inf|nan)", text, re.IGNORECASE):
        return float(text.replace(".", ""))
    is_empty = value is None and not text.startswith("#")
    return value if is_empty or isinstance(value, bool) else text
