"""run.json: what a run was, written once when it starts and once more when it ends."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast, get_args

FORMAT_VERSION = 1
FILE_NAME = "run.json"
EncoderKind = Literal["separate", "shared"]


@dataclass(frozen=True)
class RunManifest:
    """The description of one run.

    :param hyperparams: plain JSON values only.
    :param encoder: None where the policy has no encoder.
    :param groups: the named parameter groups.
    :param reward_is_normalized: whether the critic saw rewards scaled by VecNormalize; None if unknown.
    :param versions: package name to version.
    :param git: ``commit`` and ``dirty`` of the repository that the run was started in; None outside one.
    :param machine: cpu, cores, memory, gpu, platform and python; empty in manifests of earlier versions.
    :param command: the words of the command line; empty likewise.
    :param started: ISO 8601 time, with its offset.
    :param finished: the same; None while the run goes on.
    :param event_dir: where the event files lie, relative to the manifest's own folder.
    """

    algo: str
    env_id: str
    seed: int | None = None
    n_timesteps: int | None = None
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    encoder: EncoderKind | None = None
    groups: tuple[str, ...] = ()
    reward_is_normalized: bool | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    git: Mapping[str, Any] | None = None
    machine: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    started: str | None = None
    finished: str | None = None
    event_dir: str | None = None
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version is {self.format_version!r}; this version reads {FORMAT_VERSION}")
        if self.encoder is not None and self.encoder not in get_args(EncoderKind):
            raise ValueError(f"encoder is {self.encoder!r}; expected 'separate', 'shared' or None")
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "command", tuple(self.command))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest; a reader sees the old file or the new one, never a part.

        :raises ValueError: if ``hyperparams`` holds what JSON cannot say (NaN and infinities included).
        """
        path = Path(path)
        try:
            text = json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: not plain JSON ({error}); turn the value into numbers, strings or lists"
            ) from error
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> RunManifest:
        """Read a manifest.

        :raises ValueError: if it is no JSON object, of an unknown format_version, or has an unknown or
            missing key; the message names the file.
        :raises OSError: if it cannot be read.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: not a JSON file ({error})") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
        if content.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{path}: format_version is {content.get('format_version')!r}; this version reads {FORMAT_VERSION}"
            )
        known = {f.name for f in fields(cls)}
        unknown = sorted(content.keys() - known)
        if unknown:
            raise ValueError(f"{path}: unknown keys {', '.join(unknown)}")
        try:
            return cls(**cast("dict[str, Any]", content))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
