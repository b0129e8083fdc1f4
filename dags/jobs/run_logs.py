"""Keep the directory of run logs small: compress what is old, remove what is older."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import write_json

__all__ = ["UnsafeRoot", "tidy"]

_DAY_S = 86_400
# A file system hands out blocks of 4 KiB: a smaller file would not get smaller on disk.
_WORTH_IT = 4096
# A task's output and the times of its lines.
_TEXT = (".log", ".times")


class UnsafeRoot(Exception):
    """A directory that holds more than run logs, so nothing in it is removed."""

    def __str__(self) -> str:
        return f"{self.args[0]} {self.args[1]}; RUN_LOGS_DIR must be a directory of its own"


def tidy(
    run_dir: str,
    run_id: str,
    compress_after_days: int | str = 7,
    delete_after_days: int | str = 30,
    note: str = "var/ops/run_logs.json",
) -> dict[str, Any]:
    """Compress the logs of directories unwritten for some days and remove those unwritten for more.

    `run_dir` is this run's own directory (`${run.dir}`); all runs lie where the part named `run_id` lies. A directory
    is judged by its newest file, so a run that still writes is left alone whole, and so is this one. What was done is
    written to `note` and returned as outputs. Raises UnsafeRoot, and ValueError for less than one day.
    """
    # A parameter from a command line is a text.
    compress_days, delete_days = int(compress_after_days), int(delete_after_days)
    if min(compress_days, delete_days) < 1:
        raise ValueError("compress_after_days and delete_after_days are at least 1")
    directory = _root_of_runs(Path(run_dir).resolve(), run_id)
    done = {"compressed": 0, "removed": 0, "freed_bytes": 0, "kept": 0}
    now = time.time()
    for files in _directories(directory, run_id):
        age_days = (now - max(path.stat().st_mtime for path in files)) / _DAY_S
        if age_days >= delete_days:
            done["removed"] += len(files)
            done["freed_bytes"] += sum(_remove(path) for path in files)
        elif age_days >= compress_days:
            worth = [path for path in files if path.suffix in _TEXT and path.stat().st_size > _WORTH_IT]
            saved = [_compress(path) for path in worth]
            done["compressed"] += len(saved)
            done["freed_bytes"] += sum(saved)
            done["kept"] += len(files)
        else:
            done["kept"] += len(files)
    _remove_empty_directories(directory, run_id)
    write_json(note, {"run_id": run_id, **done})
    print(f"{directory}: {done['compressed']} compressed, {done['removed']} removed, {done['kept']} kept")
    return dict(done)


def _root_of_runs(run_dir: Path, run_id: str) -> Path:
    own = next((place for place in (run_dir, *run_dir.parents) if place.name == run_id), None)
    if own is None:
        raise UnsafeRoot(str(run_dir), f"does not lie in a directory named {run_id}")
    if Path.cwd().resolve().is_relative_to(own.parent):
        raise UnsafeRoot(str(own.parent), "holds the project itself")
    return own.parent


def _directories(root: Path, current_run: str) -> Iterator[list[Path]]:
    """Yield the regular files of each directory below `root`, but for the current run's; links are not followed."""
    for place, names, files in os.walk(root):
        names[:] = [name for name in names if name != current_run]
        found = [Path(place, name) for name in files if name != current_run]
        regular = [path for path in found if path.is_file() and not path.is_symlink()]
        if regular:
            yield regular


def _remove(path: Path) -> int:
    size = path.stat().st_size
    path.unlink()
    return size


def _compress(path: Path) -> int:
    """Replace `path` by `path.gz` with the same times, and return the bytes saved."""
    before, target = path.stat(), path.with_name(f"{path.name}.gz")
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    with path.open("rb") as source, gzip.open(partial, "wb") as sink:
        shutil.copyfileobj(source, sink)
    os.utime(partial, ns=(before.st_atime_ns, before.st_mtime_ns))
    partial.replace(target)
    path.unlink()
    return before.st_size - target.stat().st_size


def _remove_empty_directories(root: Path, current_run: str) -> None:
    """A directory made within the last day may belong to a run that has not written yet."""
    for place, _, _ in os.walk(root, topdown=False):
        path = Path(place)
        is_old = time.time() - path.stat().st_mtime > _DAY_S
        if path != root and current_run not in path.parts and is_old and not any(path.iterdir()):
            path.rmdir()
