"""Copies of the DAG files that were run, each once, named by what it says: so a run can be run again as it was."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
from pathlib import Path

import msgspec

from .dag import Dag, load_dag
from .errors import TickpoolError
from .log_files import make_directory

__all__ = ["DagGone", "copies_of", "keep_copy", "load_copy", "read_copy"]

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"[0-9a-f]{16}")
_MODE = 0o640


class DagGone(TickpoolError):
    """A copy that cannot be used any more: (the version, the directory of copies, why)."""

    def __str__(self) -> str:
        return f"version {self.args[0]!s:.40} of the DAG cannot be read from {self.args[1]}: {self.args[2]}"


def copies_of(run_logs: Path) -> Path:
    """Return where the copies lie, beside the output of runs; no run has such a name."""
    return run_logs / ".dags"


def keep_copy(directory: Path, file: Path, stamp: os.stat_result) -> str | None:
    """Keep a copy of a DAG file, unless there is one; return its version.

    None when the file is another by now than `stamp` tells of, or the disk takes no copy: the run goes on without.
    """
    try:
        data = file.read_bytes()
        now = os.stat(file)
        if (now.st_mtime_ns, now.st_size, now.st_ino) != (stamp.st_mtime_ns, stamp.st_size, stamp.st_ino):
            return None
        version = _version_of(data)
        copy = directory / f"{version}.yaml"
        if not copy.exists():
            make_directory(directory)
            new = directory / f".{version}.{secrets.token_hex(4)}"
            fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
            try:
                with open(fd, "wb") as out:
                    out.write(data)
                os.replace(new, copy)
            except OSError:
                new.unlink(missing_ok=True)
                raise
    except (OSError, TickpoolError) as error:
        logger.warning("%s: no copy of it is kept: %s", file, error)
        return None
    return version


def load_copy(directory: Path, version: str, project: Path) -> Dag:
    """Read a DAG of a project as it was. Raises DagGone, InvalidFile."""
    read_copy(directory, version)
    return msgspec.structs.replace(load_dag(Path(f"{version}.yaml"), directory, alone=True), project=str(project))


def read_copy(directory: Path, version: str) -> bytes:
    """Return what a DAG file said in this version. Raises DagGone."""
    if not _VERSION.fullmatch(version):
        raise DagGone(version, directory, "that is no version")
    try:
        data = (directory / f"{version}.yaml").read_bytes()
    except OSError as error:
        raise DagGone(version, directory, error.strerror) from None
    if _version_of(data) != version:
        raise DagGone(version, directory, "it is not as it was written")
    return data


def _version_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
