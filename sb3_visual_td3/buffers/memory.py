"""Whether the machine has the memory that is about to be used: allocating tells too late, pages come when touched."""

from __future__ import annotations

from pathlib import Path

try:  # Stable-Baselines3 looks with it too, where it is installed.
    import psutil
except ImportError:
    psutil = None

CGROUP = Path("/sys/fs/cgroup")


def available_bytes() -> int | None:
    """:return: what may still be used without swapping, within the container's limit; None where nothing tells"""
    limits = [] if psutil is None else [int(psutil.virtual_memory().available)]
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        if limit != "max":
            limits.append(int(limit) - int((CGROUP / "memory.current").read_text()) + _file_cache_bytes())
    except (OSError, ValueError):
        pass  # no version 2 cgroup: the machine's own figure stands
    return min(limits) if limits else None


def _file_cache_bytes() -> int:
    """:return: what the container's kernel gives back when memory is short"""
    for line in (CGROUP / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "inactive_file":
            return int(value)
    return 0


def require_memory(n_bytes: int, purpose: str, advice: str) -> None:
    """Refuse what would end in swapping, or in the kernel's killing the process hours later.

    :param n_bytes: what will be used
    :param purpose: what for, as the subject of the message
    :param advice: what to do if it is not there
    :raises MemoryError: if less is available
    """
    available = available_bytes()
    if available is not None and n_bytes > available:
        raise MemoryError(f"{purpose} needs {n_bytes / 1e9:.2f} GB, {available / 1e9:.2f} GB are available. {advice}")
