"""Who may write what root is to run: as root, configuration that others could change is refused.

Only what the mode and the owner of a file show; other users need no such check, for they hurt nobody but themselves.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from .errors import Fault

__all__ = ["directories_between", "foreign_faults"]


def foreign_faults(place: str | os.PathLike[str], shown: str | None = None) -> Iterator[Fault]:
    """Yield what lets others change a file or directory, if this process is root's and the place is there.

    It must belong to root, and only root and the group 0 may have the permission to write.
    """
    if os.geteuid() != 0:
        return
    try:
        found = os.stat(place)
    except (OSError, ValueError):
        return
    path = shown or str(place)
    if found.st_uid != 0:
        yield Fault(path, 0, 0, f"belongs to user {found.st_uid}, and root runs it; run `chown root` on it")
    group = stat.S_IWGRP if found.st_gid != 0 else 0
    if found.st_mode & (stat.S_IWOTH | group):
        mode = stat.S_IMODE(found.st_mode)
        who = "anybody" if mode & stat.S_IWOTH else f"group {found.st_gid}"
        yield Fault(path, 0, 0, f"can be written by {who} (mode {mode:04o}), and root runs it; run `chmod go-w` on it")


def directories_between(project: Path, file: Path) -> list[str]:
    """Return the directories from the project down to a file, by its path and by where its links lead.

    Of a file that lies elsewhere, the one that holds it.
    """
    root, real_root = str(project), os.path.realpath(project)
    found: dict[str, None] = {root: None}
    for top, path in ((root, str(project / file)), (real_root, os.path.realpath(project / file))):
        above = os.path.dirname(path)
        if not _is_at_or_below(above, top):
            found[above] = None
        while above != top and _is_at_or_below(above, top):
            found[above] = None
            above = os.path.dirname(above)
    return list(found)


def _is_at_or_below(path: str, top: str) -> bool:
    return path == top or path.startswith(os.path.join(top, ""))
