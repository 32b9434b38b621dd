"""Check the arguments of an environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sb3_visual_td3.common.numbers import is_truth_value, to_float, to_integer


def check_count(name: str, value: object, minimum: int, maximum: int) -> int:
    """Check that ``value`` is an integer in a given range, and return it as an int.

    :param name: name of the argument
    :param value: an integer in any notation that :func:`~sb3_visual_td3.common.numbers.to_integer` accepts
    :param minimum: smallest accepted value
    :param maximum: largest accepted value
    :raises ValueError: if the value is out of range or not an integer (bools are rejected)
    """
    expected = f"an integer from {minimum} to {maximum}; set {name} to one of these"
    number = to_integer(name, value, minimum, expected)
    if number > maximum:
        raise ValueError(f"{name}={value!r}: expected {expected}")
    return number


def check_quantity(name: str, value: object, minimum: float, maximum: float, unit: str) -> float:
    """Check that ``value`` is a number in a given range, and return it as a float.

    :param name: name of the argument
    :param value: a number in any notation that :func:`~sb3_visual_td3.common.numbers.to_float` accepts
    :param minimum: smallest accepted value
    :param maximum: largest accepted value
    :param unit: unit of value and limits, for the message
    :raises ValueError: if the value is out of range or not a finite number (bools are rejected)
    """
    expected = f"a number from {minimum:g} to {maximum:g} {unit}; give {name} in {unit}"
    return to_float(name, value, minimum, maximum, expected=expected)


def coerce_count(settings: object, field: str, minimum: int, maximum: int, name: str | None = None) -> None:
    """Check a field of a frozen dataclass and store it as an int; for use in ``__post_init__``.

    :param settings: the dataclass
    :param field: name of the field
    :param minimum: smallest accepted value
    :param maximum: largest accepted value
    :param name: name of the argument, for the message; None for the name of the field
    :raises ValueError: if the field is not an integer or is out of range
    """
    # A frozen dataclass refuses plain assignment, also in its own __post_init__.
    object.__setattr__(settings, field, check_count(name or field, getattr(settings, field), minimum, maximum))


def coerce_quantity(
    settings: object, field: str, minimum: float, maximum: float, unit: str, name: str | None = None
) -> None:
    """Check a field of a frozen dataclass and store it as a float; for use in ``__post_init__``.

    :param settings: the dataclass
    :param field: name of the field
    :param minimum: smallest accepted value
    :param maximum: largest accepted value
    :param unit: unit of value and limits, for the message
    :param name: name of the argument, for the message; None for the name of the field
    :raises ValueError: if the field is not a finite number or is out of range
    """
    number = check_quantity(name or field, getattr(settings, field), minimum, maximum, unit)
    object.__setattr__(settings, field, number)


def check_flag(name: str, value: object) -> bool:
    """Return ``value`` as a Python bool if it is True or False.

    :param name: name of the argument
    :param value: the value to check
    :raises ValueError: if the value is neither True nor False
    """
    if not is_truth_value(value):
        raise ValueError(f"{name}={value!r}: expected True or False; set {name} to one of these")
    return bool(value)


def check_choice(name: str, value: object, choices: Sequence[str | None]) -> None:
    """Raise an error unless ``value`` is one of ``choices``.

    :param name: name of the argument
    :param value: the value to check
    :param choices: the accepted values
    :raises ValueError: if the value is not one of the choices
    """
    # The type is checked first: ``value in choices`` fails for an array, whose comparison is not a single bool.
    if not (value is None or isinstance(value, str)) or value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {list(choices)}")


def select_maps(maps: object, groups: Mapping[str, Sequence[str]], file_suffix: str | None = None) -> tuple[str, ...]:
    """Return the names of the maps that the argument ``maps`` of an environment selects.

    :param maps: name of a group, a map, or a sequence of maps; a map is given by its name or file path
    :param groups: names of the available maps, by group
    :param file_suffix: suffix of map files that the simulator can read; None if it reads no map files
    :return: names and paths, in the order given
    :raises ValueError: if ``maps`` is empty, if a map is unknown or given twice, or if a file does not exist
    """
    if isinstance(maps, str) and maps in groups:
        return tuple(groups[maps])
    names: tuple[object, ...] = ()
    if isinstance(maps, str):
        names = (maps,)
    elif isinstance(maps, Sequence):
        names = tuple(maps)

    known = [name for group in groups.values() for name in group]
    selected: list[str] = []
    for name in names:
        is_file_name = file_suffix is not None and isinstance(name, str) and name.endswith(file_suffix)
        if is_file_name and not Path(str(name)).is_file():
            raise ValueError(f"maps={maps!r}: there is no file {name}; give the path of an OpenDRIVE file")
        if is_file_name or (isinstance(name, str) and name in known):
            selected.append(str(name))
    if not names or len(selected) != len(names) or len(set(selected)) != len(selected):
        or_files = "" if file_suffix is None else f" or *{file_suffix} files"
        raise ValueError(
            f"maps={maps!r}: expected one of the groups {sorted(groups)} or a sequence of different map names"
            f"{or_files}; choose the map names from {known}"
        )
    return tuple(selected)
