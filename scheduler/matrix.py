"""The matrix of a schedule: one entry of a file, and a schedule of its own for each combination of parameters."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec

from workers.ids import ID_RULE, is_id

from .schedule_model import Schedule

__all__ = ["expand", "wrong_matrix"]

_MOST = 1000
# What stands in an id as it is; a dot would look like the border between two ids.
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,32}")


def expand(schedule: Schedule) -> list[Schedule]:
    """Return one schedule for each combination of `matrix`, or the schedule itself when it has none.

    A combination is judged, queued and audited for itself, so that one that still runs holds no other up. Its id is
    the entry's id and its values (`load.eu-7`), which makes the key of its runs; `matrix_of` keeps the entry's id.
    """
    if not schedule.matrix:
        return [schedule]
    return [
        msgspec.structs.replace(
            schedule,
            id=f"{schedule.id}.{_suffix(values)}",
            params={**schedule.params, **dict(zip(schedule.matrix, values, strict=True))},
            matrix={},
            matrix_of=schedule.id,
        )
        for values in itertools.product(*schedule.matrix.values())
    ]


def wrong_matrix(schedule: Schedule) -> Iterator[tuple[str, str]]:
    """Yield (key, what is wrong)."""
    matrix = schedule.matrix
    for name, values in matrix.items():
        if not values or not all(isinstance(value, str | int | float) for value in values):
            yield "matrix", f"`matrix.{name[:80]}` needs a list of texts, numbers, true or false; write at least one"
            return
        if name in schedule.params:
            yield "matrix", f"`{name[:80]}` stands in `params` and in `matrix`; write it once"
    count = math.prod(map(len, matrix.values()))
    if count > _MOST:
        yield "matrix", f"`matrix` has {count} combinations; at most {_MOST} are allowed"
        return
    ids = Counter(each.id for each in expand(schedule)) if matrix else Counter[str]()
    for name, times in ids.items():
        if times > 1:
            yield "matrix", f"`matrix` has {times} combinations that make the id `{name[:128]}`; write each value once"
        elif not is_id(name):
            yield "matrix", f"{name[:200]!r}, made of `id` and `matrix`, is no id; {ID_RULE}"


def _suffix(values: tuple[Any, ...]) -> str:
    """Return the values as a part of an id: as they are where they can be, or a hash of them all."""
    texts = [value if isinstance(value, str) else json.dumps(value) for value in values]
    if all(map(_PLAIN.fullmatch, texts)):
        return "-".join(texts)
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]
