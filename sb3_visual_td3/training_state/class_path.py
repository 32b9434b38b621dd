"""How a class is named in a state."""

from __future__ import annotations


def class_path(cls: type) -> str:
    """:return: where the class is found: ``package.module.Class``"""
    return f"{cls.__module__}.{cls.__qualname__}"
