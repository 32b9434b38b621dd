"""Define the flags that our commands share, and change rl-zoo's parsers.

Each of these changes can be removed once rl_zoo3 does the same itself (release 2.9 does not):

- :func:`usage_errors` prints an error as one line, without the usage of all flags
- :func:`all_choices` accepts ``--vec-env ray``, ``--end-on`` and ``--no-doctor``
- :func:`command_line` gives all commands ``--gym-packages`` and checks ``--env``
- :func:`store_pairs` reads plain words in KEY:VALUE, such as ``lin_1e-3``, without quotes

This module imports neither torch nor rl_zoo3, so that ``--help`` is fast.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import difflib
import functools
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import gymnasium as gym

from sb3_visual_td3.common.errors import UsageError

ALGO = "visual_td3"
"""The name of our algorithm in rl-zoo."""
DEFAULT_ENV = "LiteDriving-v0"
VALIDATION_TIMESTEPS = 5_000
"""Number of steps of ``visual-td3 validate`` without a hyperparameter file and without ``--n-timesteps``."""
PACKAGES_FLAG = "--gym-packages"
NO_DOCTOR_HELP = (
    "skip the check of the settings before training, which takes less than a second ('visual-td3 doctor' also checks "
    "the environment and the learner)"
)
END_ON_HELP = (
    "signals that end training with a snapshot, if there is a SnapshotCallback: the step is completed, a snapshot "
    "is saved, and the exit code is 75. A second signal ends training at once; '--end-on none' handles no signal "
    "(default: SIGTERM SIGUSR1)"
)
EXIT_CODES = (
    "exit codes: 0 trained, even if a callback ended the training; 1 crashed; 2 bad usage; 4 a bug, in our code or in "
    "a callback or environment of yours; 74 the final model could not be saved; 75 a signal ended the training; "
    "130 Ctrl-C. After 1, 4, 74, 75 and 130, 'visual-td3 resume RUN_DIR' continues from the newest snapshot"
)
_LARGEST_SEED = 2**32 - 1
_MIN_SIMILARITY = 0.7
"""How similar a registered name must be to be proposed, from 0 to 1."""
_ABSENT = object()

_DATA_TYPES = (bool, int, float, complex, str, bytes, list, tuple, dict, set)
_MEANT_AS_CODE = (ast.Call, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.JoinedStr)


def positive_int(text: str) -> int:
    """Return a count that was typed on the command line; this is an argparse type.

    :param text: the text that was typed
    :return: an integer >= 1
    :raises argparse.ArgumentTypeError: if the text is anything else
    """
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer >= 1, got {text!r}")
    return int(text)


# ---- environments of the user's own


def add_packages_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--gym-packages`` to a command that makes an environment.

    :param parser: the parser of the command
    """
    parser.add_argument(
        PACKAGES_FLAG,
        nargs="+",
        default=[],
        metavar="MODULE",
        help="modules that register environments of your own: installed packages, or files in the current folder. "
        "Write a file's name without .py: my_envs for my_envs.py",
    )


def packages_in(arguments: Sequence[str]) -> list[str]:
    """Return the modules that ``--gym-packages`` names on a command line.

    :param arguments: the words of the command line
    """
    parser = argparse.ArgumentParser(add_help=False)
    add_packages_argument(parser)
    packages: list[str] = parser.parse_known_args(arguments)[0].gym_packages
    return packages


def import_packages(packages: Sequence[str]) -> None:
    """Import the modules that register environments.

    The current folder is searched last, and stays on the path.

    :param packages: dotted names of the modules
    :raises UsageError: if a module does not exist
    """
    current_folder = os.getcwd()
    if packages and current_folder not in sys.path and "" not in sys.path:
        sys.path.append(current_folder)
    for package in packages:
        if package.startswith("."):  # import_module() would take it for a relative import, which needs a package
            raise _no_such_module(package)
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            is_itself_missing = error.name is not None and (
                package == error.name or package.startswith(f"{error.name}.")
            )
            if not is_itself_missing:
                raise ImportError(
                    f"{PACKAGES_FLAG} {package}: the module needs {error.name}, which is not installed: install it"
                ) from error
            raise _no_such_module(package) from error


def _no_such_module(package: str) -> UsageError:
    """Return the error for a module that does not exist, or that is given as a path."""
    name = Path(package.lstrip(".")).stem
    is_path = package.startswith(".") or package.endswith(".py") or os.sep in package
    hint = f"; give the name of the module, {name}" if is_path and name else ""
    return UsageError(
        f"{PACKAGES_FLAG} {package}: there is no such module among the installed packages or in {os.getcwd()}{hint}"
    )


def check_environment(
    env_id: str, packages: Sequence[str] = (), trained_with: Callable[[], Sequence[str]] = list
) -> None:
    """Check that gymnasium knows an environment.

    :param env_id: id of the environment, such as ``LiteDriving-v0``
    :param packages: modules of ``--gym-packages``, which are imported already
    :param trained_with: function that returns the modules that ``--gym-packages`` named when the run was trained
    :raises UsageError: if the environment is not registered
    """
    if env_id in gym.registry:
        return
    missing = [package for package in trained_with() if package not in packages]
    if missing:
        from sb3_visual_td3.common.input_files import shown  # imports yaml, which --help does not need

        named = shown(" ".join(missing))[1:-1]  # a stranger may have written the run's files
        raise UsageError(
            f"--env {env_id}: no environment of this name is registered. The run was trained with {PACKAGES_FLAG} "
            f"{named}: add it, if you trust {'these modules' if len(missing) > 1 else 'this module'}"
        )
    module, colon, name = env_id.partition(":")
    if colon:
        raise UsageError(
            f"--env {env_id}: expected an id without a module. Write {PACKAGES_FLAG} {module} --env {name}"
        )
    # Later entries replace earlier ones. So of several ids with the same bare name, the id without a namespace and with
    # the latest version is proposed.
    by_name = {_bare_name(known): known for known in sorted(gym.registry, key=lambda known: "/" not in known)}
    close = difflib.get_close_matches(_bare_name(env_id), by_name, n=1, cutoff=_MIN_SIMILARITY)
    text = f"--env {env_id}: no environment of this name is registered"
    if packages:
        text += f", neither by gymnasium nor by {', '.join(packages)}"
    if close:
        text += f". Did you mean {by_name[close[0]]}?"
    elif not packages:
        text += "."
    if not packages:
        text += f" If it is your own environment, name the module that registers it: {PACKAGES_FLAG} MODULE"
    raise UsageError(text)


def _bare_name(env_id: str) -> str:
    """Return an environment's id in lower case, without namespace and version."""
    return re.sub(r"-v\d+$", "", env_id.rsplit("/", maxsplit=1)[-1]).lower()


def check_env_flags(arguments: Sequence[str], default_env: str) -> None:
    """Import the packages that a command line of rl-zoo names, and check its environment.

    :param arguments: the words of the command line
    :param default_env: environment of a command line without ``--env``
    :raises UsageError: if a module or the environment does not exist
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--env", default=default_env)
    env = parser.parse_known_args(arguments)[0].env
    packages = packages_in(arguments)
    import_packages(packages)
    check_environment(env, packages)


def check_seed(seed: int | None) -> None:
    """Check that a seed is not too large for NumPy.

    A negative seed is accepted, because rl-zoo later replaces it by a random seed.

    :param seed: the seed, or None
    :raises UsageError: if it is too large
    """
    if seed is not None and seed > _LARGEST_SEED:
        raise UsageError(f"--seed {seed}: expected an integer <= {_LARGEST_SEED}, the largest seed that NumPy accepts")


def check_device(device: str) -> None:
    """Check that PyTorch knows a device.

    :param device: value of ``--device``
    :raises UsageError: if PyTorch does not know it
    """
    import torch as th

    if device == "auto":
        return
    try:
        th.device(device)
    except RuntimeError as error:
        raise UsageError(f"--device {device}: expected auto, cpu, cuda, or another device of PyTorch") from error


def check_training_flags(parsed: argparse.Namespace) -> None:
    """Check flags of rl-zoo's ``train`` whose errors would not name the flag, or that would have no effect.

    :param parsed: rl-zoo's parsed arguments
    :raises UsageError: if a value is wrong, or a file does not exist
    """
    from sb3_visual_td3.zoo.hyperparameters import find_config

    # rl-zoo's default is -1. It would also take 0 and other negative numbers for "the number in the file".
    if parsed.n_timesteps == 0 or parsed.n_timesteps < -1:
        raise UsageError(
            f"--n-timesteps {parsed.n_timesteps}: expected an integer >= 1, or -1 for the number in the hyperparameter "
            "file"
        )
    # With --gym-packages, a module is looked up later: this flag adds the current folder to the path of modules.
    if parsed.conf_file and (parsed.conf_file.endswith((".yml", ".yaml", ".py")) or not parsed.gym_packages):
        find_config(parsed.conf_file)
    agent = parsed.trained_agent
    if agent and not os.path.isfile(agent):
        raise UsageError(f"--trained-agent {agent}: there is no such file")
    if agent and not agent.endswith(".zip"):
        raise UsageError(f"--trained-agent {agent}: expected the .zip file of a saved model")


# ---- changes of rl-zoo's parsers, until they have parsed a command line


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Replace an attribute of a module or class until the ``with`` block ends.

    :param owner: the module or class
    :param name: the attribute, which need not exist
    :param value: value of the attribute within the block
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
def command_line(
    command: str,
    arguments: Sequence[str],
    *,
    makes_environments: bool = False,
    trains: bool = False,
    trained_with: Callable[[argparse.Namespace, str], Sequence[str]] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Iterator[None]:
    """Make rl_zoo3 read these arguments instead of the process's own ``sys.argv``.

    argparse is changed only until rl_zoo3's parser has read the arguments, because packages, environments and callbacks
    of the user may have parsers of their own.

    :param command: our subcommand, which ``--help`` shows as the program's name
    :param arguments: flags of the subcommand
    :param makes_environments: True makes the command accept ``--gym-packages``, import these packages, and check the
        environment's id before it runs
    :param trains: True makes the command accept the flags of :func:`all_choices`, and check the flags of a training
    :param trained_with: function that takes the parsed arguments and the environment's id, and returns the modules that
        ``--gym-packages`` named when the run was trained. It is called if the environment is not registered
    :param overrides: values that replace those of the flags, by the names that the flags have in the namespace
    """
    parse: Callable[..., argparse.Namespace] = argparse.ArgumentParser.parse_args
    program = f"visual-td3 {command}"

    def parse_args(self: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> argparse.Namespace:
        # The plot commands (rl_zoo3 2.9) pass their description where argparse takes the name of the program, so that
        # their usage begins "usage: Gather results, ...".
        if self.prog != program and self.description is None:
            self.description = f"{self.prog}."
        self.prog = program
        if makes_environments:
            with contextlib.suppress(argparse.ArgumentError):  # train and enjoy have the flag already
                add_packages_argument(self)
        parsed = parse(self, *args, **kwargs)
        changes.close()
        vars(parsed).update(overrides or {})
        if trains and hasattr(parsed, "trained_agent"):
            check_training_flags(parsed)
        if makes_environments:
            check_device(getattr(parsed, "device", "auto"))
            check_seed(getattr(parsed, "seed", None))
            import_packages(parsed.gym_packages)
            if hasattr(parsed, "env"):
                env_id = getattr(parsed.env, "gym_id", parsed.env)
                packages = partial(trained_with, parsed, env_id) if trained_with is not None else list
                check_environment(env_id, parsed.gym_packages, packages)
        return parsed

    own_argv, sys.argv = sys.argv, [program, *arguments]
    try:
        with contextlib.ExitStack() as changes:
            changes.enter_context(usage_errors())
            if trains:
                changes.enter_context(all_choices())
            changes.enter_context(replaced(argparse.ArgumentParser, "parse_args", parse_args))
            yield
    finally:
        sys.argv = own_argv


@contextmanager
def usage_errors() -> Iterator[None]:
    """Make argparse raise a UsageError instead of ending the process."""

    def raise_usage_error(self: argparse.ArgumentParser, message: str) -> NoReturn:  # noqa: ARG001 - a method
        raise UsageError(f"{message}; --help shows the flags")

    with replaced(argparse.ArgumentParser, "error", raise_usage_error):
        yield


@contextmanager
def all_choices() -> Iterator[None]:
    """Make rl-zoo's parser accept ``--vec-env ray``, and our own flags ``--end-on`` and ``--no-doctor``."""
    from sb3_visual_td3.zoo.hyperparameters import VEC_ENVS

    add = argparse.ArgumentParser.add_argument

    def add_argument(self: argparse.ArgumentParser, *names: Any, **kwargs: Any) -> argparse.Action:
        # Only the parser of rl_zoo3.train has --vec-env, and this is also the parser to which our flags are added.
        if "--vec-env" in names:
            kwargs["choices"] = list(VEC_ENVS)
            add(self, "--end-on", nargs="+", metavar="SIGNAL", help=END_ON_HELP)
            add(self, "--no-doctor", action="store_true", help=NO_DOCTOR_HELP)
            self.epilog = EXIT_CODES
        return add(self, *names, **kwargs)

    with replaced(argparse.ArgumentParser, "add_argument", add_argument):
        yield


# ---- KEY:VALUE


def store_pairs(
    self: argparse.Action,
    parser: argparse.ArgumentParser,  # noqa: ARG001 - argparse calls an action with it
    namespace: argparse.Namespace,
    values: Sequence[str],
    option_string: str | None = None,
) -> None:
    """Store KEY:VALUE pairs as a dict; this replaces ``rl_zoo3.utils.StoreDict.__call__``.

    :param self: the argparse action
    :param parser: the parser that calls it
    :param namespace: the namespace in which they are stored
    :param values: the pairs as they were typed
    :param option_string: the flag as it was typed
    :raises UsageError: if a text is not a pair, or its value is code that fails
    """
    setattr(namespace, self.dest, _read_pairs(values, option_string or self.dest, runs_code=True))


class StorePlainPairs(argparse.Action):
    """Store KEY:VALUE pairs as a dict. No value is evaluated as Python code."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Store the KEY:VALUE pairs of a flag."""
        try:
            pairs = _read_pairs(values or (), option_string or self.dest, runs_code=False)
        except UsageError as error:
            parser.error(str(error))
        setattr(namespace, self.dest, pairs)


def _read_pairs(pairs: Sequence[str], flag: str, *, runs_code: bool) -> dict[str, Any]:
    """Read KEY:VALUE pairs; blanks around a key do not count.

    :param pairs: the pairs as they were typed
    :param flag: the flag as it was typed
    :param runs_code: see :func:`read_value`
    :raises UsageError: if a text is not a pair, or its value is code that fails
    """
    read: dict[str, Any] = {}
    for pair in pairs:
        key, colon, text = pair.partition(":")
        key = key.strip()
        if not key or not colon:
            raise UsageError(f"{flag} {pair}: expected KEY:VALUE, such as gamma:0.98 or town:Town02")
        if not text.strip():
            raise UsageError(f"{flag} {pair}: there is no value after the colon; write an empty string as {key}:\"''\"")
        read[key] = read_value(text, f"{flag} {key}", runs_code=runs_code)
    return read


def read_value(text: str, where: str = "the value", *, runs_code: bool = True) -> Any:
    """Read a value that was typed on the command line.

    The text is read as the first of these forms that fits: a Python literal; code that rl_zoo3 can run
    (``dict(a=nn.ReLU)``), which is run; a YAML mapping, list, boolean or null; plain text.

    :param text: the text that was typed
    :param where: name of the value in error messages
    :param runs_code: False leaves out the second form, so that no code is run
    :raises UsageError: if the text is code that fails, such as ``1/0``
    """
    text = text.strip()
    try:
        return ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        pass
    if runs_code:
        is_code, value = _run_code(text, where)
        if is_code:
            return value
    return _read_as_yaml(text)


def _run_code(text: str, where: str) -> tuple[bool, Any]:
    """Evaluate a text if it is code that rl_zoo3 can run.

    :return: whether the text is such code, and the value of the code
    :raises UsageError: if the text is meant as code, but cannot be evaluated
    """
    import rl_zoo3.utils

    try:
        expression = ast.parse(text, mode="eval").body
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        if re.match(r"dict\s*\(", text):
            raise UsageError(
                f"{where}: {text!r} is not valid Python ({error}): correct it, or quote it as text"
            ) from error
        return False, None
    # rl-zoo evaluates code in this module's namespace, so users write "nn", "HerReplayBuffer" and similar names.
    names = vars(rl_zoo3.utils)
    if isinstance(expression, ast.Name):
        # A single word is text even if Python has a function of that name ("min", "all", "id"), unless it is a type.
        known = names.get(text, next((each for each in _DATA_TYPES if each.__name__ == text), None))
        return isinstance(known, type), known
    try:
        return True, eval(compile(ast.Expression(expression), where, "eval"), dict(names))
    except Exception as error:
        if _is_meant_as_code(expression, names):
            raise UsageError(
                f"{where}: {text!r} cannot be evaluated: {error}; correct it, or quote it as text"
            ) from error
        return False, None


def _is_meant_as_code(expression: ast.expr, names: dict[str, Any]) -> bool:
    """Return whether a text is meant as code; ``map.xml`` and ``lin(1e-3)`` are not, although they look like code."""
    nodes = list(ast.walk(expression))
    used_names = {node.id for node in nodes if isinstance(node, ast.Name)}
    if not used_names:  # numbers alone, such as 1/0
        return True
    code = [node for node in nodes if isinstance(node, _MEANT_AS_CODE)]
    called = [node.func for node in code if isinstance(node, ast.Call)]
    if len(code) > len(called):  # a lambda, a comprehension or an f-string is never plain text
        return True
    roots = [node for function in called for node in ast.walk(function) if isinstance(node, ast.Name)]
    return any(root.id in names or root.id in names["__builtins__"] for root in roots)


def _read_as_yaml(text: str) -> Any:
    """Read a YAML list, mapping, boolean, null, infinity or NaN; return other text unchanged."""
    import yaml

    try:
        value = yaml.load(text, Loader=_yaml_loader())
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    if isinstance(value, dict | list) and text[0] in "{[":
        return value
    if re.fullmatch(r"[-+]?\.?(inf|nan)", text, re.IGNORECASE):
        return float(text.replace(".", ""))
    is_null = value is None and not text.startswith("#")
    if is_null or isinstance(value, bool):
        return value
    return text


@functools.cache
def _yaml_loader() -> type:
    """Return a YAML loader that reads ``1e-3`` as a number; in YAML 1.1, ``1e-3`` is text."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
    )
    return Loader
