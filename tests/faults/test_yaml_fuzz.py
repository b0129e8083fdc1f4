"""Files that nobody would write: whatever is in them, they are read, or refused with a place and a reason."""

from __future__ import annotations

import gc
import json
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from scheduler.history import History
from scheduler.judge import judge
from scheduler.reload import loaded_events
from scheduler.schedules import read_configuration
from workers.dag import load_dag
from workers.errors import Fault, InvalidFile

SEED = 20261123
NOW = datetime(2026, 11, 23, 12, 0, 30, tzinfo=UTC)
LINE_BYTES = 64 * 1024
# The place is left out only of what concerns a file as a whole.
PLACED = re.compile(r"[^\n]+:[1-9][0-9]*:[1-9][0-9]*: \S[^\n]*")
WHOLE = ("is larger than", "cannot be read", "is a directory", "not a regular file")

SCHEDULE_FILE = """\
# what runs when
- id: nightly
  cron: "30 2 * * *"
  dag: dags/a.yaml
  timezone: Europe/Paris
  tenant: ops
  tags: [billing, nightly]
  params: {region: north, depth: 3, ratio: 1.5, tags: [a, 'b']}
  overlap: queue
  catchup: all
  catchup_window: 1h30m
  timeout: 90s
  retries: {max: 2, delay: 10s, backoff: 2, jitter: true}
- id: often
  cron: '*/5 * * * MON-FRI'
  dag: dags/a.yaml
  enabled: false
  description: >
    folded text
    of two lines
"""
DAG_FILE = """\
id: a
description: "a graph \\u00e9"
params:
  region: north
  depth: 1
  ratio: 1.0
  tags: []
env: {MODE: fast}
tasks:
  - id: fetch
    run: |
      echo "${params.region}"
      exit 0
    timeout: 5m
    retries: {max: 1, delay: 1s}
  - id: load
    call: os.path:join
    args: {a: "${tasks.fetch.outputs.file}", p: [1, 2.5, true, null]}
    needs: [fetch]
    trigger_rule: all_success
  - {id: clean, run: ["rm", "-f", "x"], needs: [load], trigger_rule: all_done}
"""
# fmt: off
SCRAPS = [
    b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x85", b"\x1b[31m", b"\r", b"\t",
    b"&a ", b"*a ", b"!!python/object:os.system ", b"!t ", b"<<: ", b"- ", b"? ", b": ", b"{", b"}", b"[", b"]",
    b"|\n", b">-\n", b"'", b'"', b"%YAML 1.1\n", b"---\n", b"...\n", b"# ", b", ", b"\\", b"~", b"${", b"${params.x}",
    b"$${", b".inf", b"1e999", b"-0", b"0x1G", b"0o8", b"1_000", b"9" * 400, b"2026-11-23", b"NO", b"\n\n", b"  ",
    b" " * 99,
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 2**63, 2**64 - 1, 1e308, -0.0, "", " ", "null", "x" * 5000, "\u202e", "\U0001f600",
    "a\nb", [], {}, [[]], [None], {"": ""}, {"id": "x"}, [{"id": "x"}], "../../etc/passwd", "/dev/zero", "a\0b",
    "@every 0s", "@every 1ms", "* * * *", "0 0 31 2 *", "H H * * *", "Mars/Olympus", "../UTC", "1h" * 50, "${run.id}",
    "\ud800",
]
KEYS = ["priority", "id", "run", "needs", "<<", "x" * 300, "\x1b[1m", "params", "\u202e", ""]
# fmt: on


def _bytes_at_random(dice: random.Random, source: bytes) -> bytes:
    """Flip, drop, double, cut and splice bytes; put scraps of syntax anywhere."""
    data = bytearray(source)
    for _ in range(dice.choice([1, 1, 2, 3, 8, 30])):
        at, size = dice.randrange(len(data) + 1), dice.choice([1, 1, 2, 7, 40])
        kind = dice.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << dice.randrange(8)
        elif kind == 1:
            del data[at : at + size]
        elif kind == 2:
            data[at:at] = data[at : at + size] * dice.choice([1, 2, 20])
        elif kind == 3:
            data[at:at] = dice.randbytes(size)
        elif kind == 4 and dice.random() < 0.2:
            del data[at:]
        else:
            data[at:at] = dice.choice(SCRAPS)
    return bytes(data)


def _tree_at_random(dice: random.Random, source: bytes) -> bytes:
    """Change values, keys and shapes of what the file says, and write it as YAML or JSON again."""
    data = yaml.safe_load(source)
    for _ in range(dice.choice([1, 1, 2, 4])):
        box = data
        while True:
            keys: list[Any] = list(box) if isinstance(box, dict) else list(range(len(box)))
            if not keys:
                break
            key = dice.choice(keys)
            if isinstance(box[key], dict | list) and dice.random() < 0.7:
                box = box[key]
                continue
            _change(dice, box, key)
            break
    if dice.random() < 0.3:
        return json.dumps(data).encode()
    text = yaml.safe_dump(data, allow_unicode=dice.random() < 0.5, default_flow_style=dice.choice([True, False, None]))
    return text.encode("utf-8", "surrogatepass")


def _change(dice: random.Random, box: Any, key: Any) -> None:
    kind = dice.randrange(5)
    if kind == 0:
        del box[key]
    elif kind == 1 and isinstance(box, dict):
        box[dice.choice([f"{key}x", key.upper(), "priority", "id", "run", "needs", "<<", "x" * 300, "\x1b[1m"])] = box[
            key
        ]
    elif kind == 2 and isinstance(box, list):
        box.append(box[key])
    else:
        box[key] = dice.choice(VALUES)


def _hostile(dice: random.Random, source: bytes) -> bytes:
    """Make what is meant to hurt: deep, long, many, or all at once."""
    n = dice.choice([40, 1000, 20_000])
    bomb = "a: &a [x, x]\n" + "".join(f"{chr(98 + k)}: &{chr(98 + k)} [{f'*{chr(97 + k)}, ' * 9}]\n" for k in range(9))
    tasks = "".join(f"  - {{id: t{k}, run: x, needs: [t{k + 1}]}}\n" for k in range(min(n, 1000) // 4))
    schedules = "".join(f"- {{id: s{k % 50}, cron: '@daily', dag: dags/a.yaml}}\n" for k in range(min(n, 1000) // 4))
    # fmt: off
    made = [
        "[" * n, "{a: " * n, "- " * n, "? " * n, "a: " * n, "- &a\n" * n, "[*a, " * n, "!!t " * n, "'" * n,
        '"\\x41' * n, bomb, "- &a [*a]\n", "a: " + "9" * n, "a: 1." + "9" * n, "a: " + "x" * n, f'- "{"x" * n}"',
        "- id: " + "i" * n,
        "".join(f"k{k}: 1\n" for k in range(n // 4)), "".join(f"k{k % 7}: 1\n" for k in range(n // 4)), schedules,
        f"id: a\ntasks:\n{tasks}", "- params: " + "{a: " * 30 + "1" + "}" * 30 + "\n  id: deep\n  cron: '@daily'\n",
        "|\n" + " x\n" * (n // 4) + source.decode(), source.decode() * (n // 1000 + 1), "\n" * n + source.decode(),
        "\ufeff" * 3 + source.decode(),
    ]
    # fmt: on
    body = dice.choice(made).encode()
    return body if dice.random() < 0.7 else _bytes_at_random(dice, body)


def _told(file: Path, project: Path) -> list[Fault]:
    """Read a file as the service does, and take what is good as the service takes it."""
    if file.parent.name == "dags":
        try:
            load_dag(file, project)
        except InvalidFile as error:
            return list(error.faults)
        return []
    configuration = read_configuration(file.parent)
    for event in loaded_events(History(), configuration.schedules, NOW):
        assert len(json.dumps(event)) < LINE_BYTES
    for schedule in configuration.schedules:
        fire = schedule.fires.next(NOW.astimezone(schedule.zone))
        assert fire is not None
        for event in judge(schedule, [fire.astimezone(UTC)], fire.astimezone(UTC), History(), "late"):
            assert len(json.dumps(event)) < LINE_BYTES
    return configuration.faults


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_any_file_is_read_or_refused_in_lines_that_say_where(
    tmp_path: Path, count: Callable[[int, int], int], figure: Callable[[str], None]
) -> None:
    dice, files = random.Random(SEED), count(500, 10_000)
    places = {"schedules": SCHEDULE_FILE.encode(), "dags": DAG_FILE.encode()}
    for folder, source in places.items():
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.yaml").write_bytes(source)
    for folder in places:
        assert _told(tmp_path / folder / "a.yaml", tmp_path) == []
    process = psutil.Process()
    used_ms: list[tuple[float, int, int]] = []
    kinds: Counter[str] = Counter()
    for number in range(files):
        folder = dice.choice(list(places))
        # A DAG file of its own beside the good one, which the schedules go on naming.
        file = tmp_path / folder / ("a.yaml" if folder == "schedules" else "b.yaml")
        make = dice.choice([_bytes_at_random, _bytes_at_random, _tree_at_random, _hostile])
        body = make(dice, places[folder])
        file.write_bytes(body)
        began = time.thread_time()
        try:
            faults = _told(file, tmp_path)
        except Exception as error:
            error.add_note(f"seed {SEED}, file {number}: {folder}, {make.__name__}, {body[:300]!r}")
            raise
        used_ms.append(((time.thread_time() - began) * 1000, len(body), number))
        kinds["refused" if faults else "read"] += 1
        for fault in faults:
            assert PLACED.fullmatch(str(fault)) or any(words in fault.message for words in WHOLE), (number, str(fault))
            assert str(fault).isprintable(), (number, str(fault))
        if number == files // 10:
            gc.collect()
            before_mb = process.memory_info().rss / 2**20
    gc.collect()
    grown_mb = process.memory_info().rss / 2**20 - before_mb
    used_ms.sort()
    worst, size, which = used_ms[-1]
    p99 = used_ms[int(len(used_ms) * 0.99)][0]
    assert grown_mb < 50
    figure(
        f"seed {SEED}: {files} files ({kinds['read']} read, {kinds['refused']} refused), 0 tracebacks, "
        f"p99 {p99:.1f} ms, worst {worst:.1f} ms ({size} bytes, file {which}), memory {grown_mb:+.1f} MB"
    )
    # Processor time, which a busy machine stretches too: the worst are thousands of keys, and only not to be endless.
    assert worst < 20_000
    assert os.listdir(tmp_path / "schedules") == ["a.yaml"]
