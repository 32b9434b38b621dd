"""Checks of what a user hands to an environment; each says what was got, what was expected, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sb3_visual_td3.common.numbers import is_truth_value, to_float, to_integer


def check_count(name: str, value: object, minimum: int, maximum: int) -> int:
    """Return ``value``, in whatever notation of a number, as an int of ``minimum`` to ``maximum``.

    :raises ValueError: if it is not a whole number (bools and text are rejected) or lies outside.
    """
    expected = f"a whole number from {minimum} to {maximum}; set {name} to one of these"
    number = minimum - 1 if isinstance(value, str) else to_integer(name, value, minimum, expected)
    if not minimum <= number <= maximum:
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return number


def check_quantity(name: str, value: object, minimum: float, maximum: float, unit: str) -> float:
    """Return ``value``, in whatever notation of a number, as a float of ``minimum`` to ``maximum``, both in ``unit``.

    :raises ValueError: if it is not a finite number (bools and text are rejected) or lies outside.
    """
    expected = f"a number from {minimum:g} to {maximum:g} {unit}; give {name} in {unit}"
    if isinstance(value, str):
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return to_float(name, value, minimum, maximum, expected=expected)


def coerce_count(settings: object, field: str, minimum: int, maximum: int, name: str | None = None) -> None:
    """Have a field of frozen settings hold the int that it stands for.

    :param settings: a dataclass that is being made.
    :param field: of it.
    :param minimum: the smallest value that is accepted.
    :param maximum: the largest value that is accepted.
    :param name: what the user calls the field; None: as it is called here.
    :raises ValueError: as :func:`check_count`.
    """
    object.__setattr__(settings, field, check_count(name or field, getattr(settings, field), minimum, maximum))


def coerce_quantity(
    settings: object, field: str, minimum: float, maximum: float, unit: str, name: str | None = None
) -> None:
    """Have a field of frozen settings hold the float that it stands for; see :func:`coerce_count`.

    :raises ValueError: as :func:`check_quantity`.
    """
    number = check_quantity(name or field, getattr(settings, field), minimum, maximum, unit)
    object.__setattr__(settings, field, number)


def check_flag(name: str, value: object) -> bool:
    """Return ``value``, which is True or False.

    :raises ValueError: if it is anything else.
    """
    if not is_truth_value(value):
        raise ValueError(f"{name}={value!r}: expected True or False; set {name} to one of these")
    return bool(value)


def check_choice(name: str, value: object, choices: Sequence[str | None]) -> None:
    """Do nothing where ``value`` is one of ``choices``.

    :raises ValueError: if it is none of them.
    """
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {list(choices)}; choose from these")


def select_maps(maps: object, groups: Mapping[str, Sequence[str]], file_suffix: str | None = None) -> tuple[str, ...]:
    """Return the names of the maps that ``maps`` stands for.

    :param maps: the name of a group, the name of one map, the path of a map file, or a sequence of names and paths.
    :param groups: the maps that there are, by group.
    :param file_suffix: how map files end that the world can read; None where it reads none.
    :raises ValueError: if ``maps`` is empty, names one map twice, names what is in no group, or a file that is not
        there.
    """
    if isinstance(maps, str) and maps in groups:
        return tuple(groups[maps])
    known = [name for group in groups.values() for name in group]
    names = (maps,) if isinstance(maps, str) else tuple(maps) if isinstance(maps, Sequence) else ()
    files = [name for name in names if file_suffix and isinstance(name, str) and name.endswith(file_suffix)]
    for file in files:
        if not Path(file).is_file():
            raise ValueError(f"maps={maps!r}: there is no file {file}; give the path of an OpenDRIVE file")
    if not names or any(name not in known and name not in files for name in names) or len(set(names)) != len(names):
        raise ValueError(
            f"maps={maps!r}: expected one of the groups {sorted(groups)} or a sequence of different map names"
            f"{f' or *{file_suffix} files' if file_suffix else ''}; choose from {known}"
        )
    return names
