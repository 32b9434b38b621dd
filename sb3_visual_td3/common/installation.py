"""Return the pip command that installs a missing library.

The command names the libraries and not the extra that needs them, because ``pip install sb3-visual-td3[extra]`` fails
if no package index offers sb3-visual-td3.
"""

from __future__ import annotations

import re
import shlex
from importlib import metadata

DISTRIBUTION = "sb3-visual-td3"


def install_command(extra: str) -> str:
    """Return the command that installs the libraries of an extra.

    :param extra: name of the extra, such as ``"video"``
    :return: ``pip install`` and the libraries, quoted for a shell
    """
    return f"pip install {' '.join(shlex.quote(each) for each in libraries_of(extra))}"


def libraries_of(extra: str) -> list[str]:
    """Return the requirements of an extra, such as ``["moviepy", "pygame-ce"]``.

    :param extra: name of the extra
    :return: the requirements without their environment markers; ``[".[EXTRA]"]`` for a clone that is not installed
    """
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a clone on the path
        return [f".[{extra}]"]
    found = []
    for requirement in requirements:
        library, _, condition = requirement.partition(";")
        if re.search(rf"\bextra\s*==\s*['\"]{re.escape(extra)}['\"]", condition):
            found.append(library.strip())
    return found or [f".[{extra}]"]
