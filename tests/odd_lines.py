"""Lines of a log that make no sense, and events that they are made from."""

from __future__ import annotations

import json
import os
import random

from workers.events import Event, encode_line

PARKED = "p.20261123T1100Z"

# In JSON, as another hand may write it; msgspec or json would not write all of these.
VALUES = [
    "null", "true", "false", "0", "-1", "1.5", "1e308", "1e999", "-1e999", "-0", str(2**53), str(2**63), str(2**70),
    "9" * 400, '""', '"x"', '"../../etc/passwd"', '"\\u0000"', '"\\ud800"', '"\\udfff\\ud800"', '"\\u202e\\u001b[2J"',
    '"2026-13-45T99:99:99Z"', '"2026-11-23T12:00:00"', '"0001-01-01T00:00:00Z"', '"9999-12-31T23:59:59.999999Z"',
    '"9999-12-31T23:59:59-23:59"', '"' + "x" * 5000 + '"', "[]", "{}",
    "[[]]", "[null]", "[1,2]", '["a","b","c"]', '{"a":{}}', '{"pid":1}',
    '{"run_id":[],"schedule_id":1}', "[[[[[[1]]]]]]", "[" * 300 + "]" * 300, '{"":null}', '{"a":1,"a":2}',
]  # fmt: skip
GARBAGE = [
    b"\0", b"\0" * 4096, b"\xff" * 300, b"\xef\xbb\xbf{}", b"{", b"}", b'{"event":', b"null", b"true", b"1e999", b'"x"',
    b"[]", b"[{}]", b"{}{}", b"{} {}", b"\r", b" ", b"\t\t", b'{"event":"run_finished"}\r', b"{'event': 'x'}", b"NaN",
    b'{"a":"\xed\xa0\x80"}', b'{"seq":' + b"9" * 4000 + b"}", b'{"event":"a","event":"run_started"}', b"{" * 100_000,
    b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[" * 100_000 + b"]" * 100_000,
]  # fmt: skip


def made_events(run_id: str) -> list[Event]:
    """Return one or more of what a service seldom writes; one is of this run."""
    return [
        {"event": "schedule_skipped", "schedule_id": "s", "minute": "2026-11-23T11:00:00Z", "reason": "overlap"},
        {"event": "schedule_missed", "schedule_id": "s", "from": "2026-11-23T11:00:00Z", "to": "2026-11-23T11:10:00Z",
         "count": 11, "reason": "down"},
        {"event": "schedule_invalid", "file": "f", "line": 1, "col": 1, "reason": "r", "load": "x"},
        {"event": "clock_jumped", "from": "2026-11-23T11:00:00Z", "to": "2026-11-23T11:10:00Z", "seconds": 600.0},
        {"event": "worker_exited", "worker_pid": 1, "reason": "r", "run_id": None},
        {"event": "log_repaired", "offset": 1, "bytes": 1},
        {"event": "segment_started"},
        {"event": "checkpoint", "request": [run_id, {"dag": "x"}]},
        {"event": "checkpoint", "judged": ["s", [1, 2, 3]]},
        {"event": "checkpoint", "fault": {"file": "f", "line": 1, "col": 1, "reason": "r"}},
        {"event": "supervisor_started", "pid": os.getpid(), "starttime": 1, "boot_id": "b", "max_parallel": 3},
        *of_parked_runs(),
    ]  # fmt: skip


def of_parked_runs() -> list[Event]:
    """Return what is told of runs that ask, wait, and have asked for others; and of backfills and operators."""
    run = {"run_id": PARKED, "schedule_id": "s", "minute": "2026-11-23T11:00:00Z", "attempt": 1}
    child = {"run_id": f"{run['run_id']}.sub", "attempt": 1, "dag": "dags/d.yaml", "project": "."}
    process = {"pid": 7, "starttime": 1, "boot_id": "b"}
    waits: list[Event] = [
        {"task_id": "ok", "task_attempt": 1, "kind": "approval", "since_s": 1.5, "message": "?", "default": "reject"},
        {"task_id": "w", "task_attempt": 1, "kind": "time", "since_s": 1.5, "due_s": 2.5, "until_s": 3.5},
        {"task_id": "sub", "task_attempt": 1, "kind": "dag", "since_s": 1.5, "run": child["run_id"], "status": ["x"]},
    ]
    parked = {"waits": waits, "until": "2026-11-23T11:30:00Z", "tasks": {"success": 1}, "worked_s": 0.5}
    question = {"message": "?", "until": "2099-01-01T00:00:00Z", "default": "reject"}
    backfill = {"backfill_id": "s.backfill.1", "schedule_id": "s", "by": "a@b", "max_parallel": 1, "total": 1}
    kept = {"request": {**run, "dag": "dags/d.yaml"}, "status": "parked", "parked": parked, "is_due": True}
    kept |= {"run_id": run["run_id"], "schedule_id": "s", "questions": {"ok": question}}
    return [
        {"event": "run_requested", **run, "dag": "dags/d.yaml", "project": ".", "retry_of": 1, "kept": ["load[0-2]"]},
        {"event": "run_started", **run, **process},
        {"event": "run_requested", **child, "parent": {"run_id": run["run_id"], "attempt": 1, "task_id": "sub"}},
        {"event": "approval_requested", **run, "task_id": "ok", **question},
        {"event": "run_parked", **run, **parked},
        {"event": "task_approved", "run_id": run["run_id"], "attempt": 1, "task_id": "ok", "by": "a@b"},
        {"event": "task_rejected", "run_id": run["run_id"], "attempt": 1, "task_id": "ok", "by": "a@b", "comment": "c"},
        {"event": "cancel_requested", "run_id": child["run_id"], "reason": "r", "by": "a@b"},
        {"event": "run_resumed", **run, "reason": "news"},
        {"event": "run_started", **run, **process, "resumed": True, "dag_version": "0123456789abcdef"},
        {"event": "checkpoint", "run": kept},
        {"event": "checkpoint", "run": {**kept, "status": "queued", "resumed": {"timestamp": "t", "seq": 3}}},
        {"event": "checkpoint", "parked": [run["run_id"], {"waits": waits}]},
        {"event": "checkpoint", "questions": [run["run_id"], {"ok": question}]},
        {"event": "backfill_requested", **backfill, "terms": {"dag": "dags/d.yaml"}, "slots": [1795000000]},
        {"event": "backfill_cancelled", "backfill_id": "s.backfill.1", "by": "a@b"},
        {"event": "backfill_finished", "backfill_id": "s.backfill.1", "ended": {"success": 1}, "is_cancelled": False},
        {"event": "checkpoint", "backfill": {**backfill, "terms": {}, "slots": [1], "open": {"r": 1}, "ended": {}}},
        {"event": "checkpoint", "slots": ["s.backfill.1", [1795000000]]},
        {"event": "run_bumped", "run_id": run["run_id"], "by": "a@b"},
        {"event": "drain_started", "by": "a@b", "reason": "r"},
        {"event": "drain_ended", "by": "a@b"},
        {"event": "schedule_paused", "schedule_id": "s", "until": "2026-11-23T11:30:00Z", "by": "a@b", "reason": "r"},
        {"event": "schedule_resumed", "schedule_id": "s", "by": "a@b"},
    ]


def nonsense(templates: list[Event], chance: random.Random) -> bytes:
    """Return one line, with no newline in it."""
    kind = chance.randrange(10)
    if kind == 0:
        return chance.choice(GARBAGE)
    if kind == 1:
        return chance.randbytes(chance.randrange(1, 300)).replace(b"\n", b"")
    event = chance.choice(templates)
    if kind == 2:
        line = bytearray(encode_line(event)[:-1])
        line[chance.randrange(len(line))] ^= 1 << chance.randrange(8)
        return bytes(line).replace(b"\n", b"")
    return _misshape(event, chance).encode("ascii")


def _misshape(event: Event, chance: random.Random) -> str:
    """Return the event as JSON with a field or two, at any depth, gone or of another type."""
    copy = json.loads(json.dumps(event))
    marks: dict[str, str] = {}
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        place = copy
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            keys = [key for key in keys if place is not copy or key != "event"] or keys
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.7:
                place = place[key]
                continue
            if chance.random() < 0.3:
                del place[key]
            else:
                mark = f"@{len(marks)}@"
                place[key] = mark
                marks[f'"{mark}"'] = chance.choice(VALUES)
            break
    text = json.dumps(copy)
    for mark, value in marks.items():
        text = text.replace(mark, value)
    return text
