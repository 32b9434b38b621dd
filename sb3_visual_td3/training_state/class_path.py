"""How a class is named in a state."""

from __future__ import annotations


def class_path(thing: object) -> str:
    """:return: where the class of a thing is found: ``package.module.Class``"""
    cls = type(thing)
    return f"{cls.__module__}.{cls.__qualname__}"
