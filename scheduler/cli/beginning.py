"""The command that begins a project: init."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from workers.errors import TickpoolError

from .output import print_json, say
from .parser import Command

__all__ = ["COMMANDS"]

_SCHEDULE = """\
# yaml-language-server: $schema=../.tickpool/schedules.schema.json
# A schedule file is a list. Check it with `tickpool validate`, see what comes with `tickpool next`.
- id: hello                       # names the runs: hello.20261123T1505Z
  cron: "*/5 * * * *"             # minute hour day month weekday
  timezone: UTC
  dag: dags/hello.yaml            # from this project's directory
  params: {who: world}            # wins over the DAG's own value
  overlap: skip                   # still running? leave this fire time out, on record
  catchup: latest                 # down for an hour? one run, not twelve
  timeout: 5m
"""
_DAG = """\
# yaml-language-server: $schema=../.tickpool/dag.schema.json
# Try it by hand: tickpool run dags/hello.yaml -p who=you
id: hello
params: {who: nobody}
tasks:
  - id: greet
    run: |
      echo "hello ${params.who}, it is ${run.fire_time}"
      echo "letters=$(printf %s ${params.who} | wc -c)" >> "$TASK_OUTPUT"
  - id: count
    needs: [greet]
    run: echo "${tasks.greet.outputs.letters} letters"
    retries: {max: 2, delay: 10s}
"""


class AlreadyThere(TickpoolError):
    """A file that `init` will not write over: (its path,)."""

    def __str__(self) -> str:
        return f"{self.args[0]}: is there already; name another directory, or remove it"


def _init(options: argparse.Namespace) -> int:
    root: Path = options.directory
    files = dict(_files())
    for name in files:
        if os.path.lexists(root / name):
            raise AlreadyThere(str(root / name))
    _write_all(root, files)
    written = [str(root / name) for name in files]
    if options.json:
        print_json({"files": written})
        return 0
    for path in written:
        say(f"Wrote {path}")
    there = "" if root == Path() else f"cd {shlex.quote(str(root))} && "
    say(f"Next: {there}tickpool validate && tickpool run dags/hello.yaml && tickpool serve")
    return 0


def _files() -> Iterator[tuple[str, str]]:
    from scheduler.json_schemas import schema_texts

    yield "schedules/hello.yaml", _SCHEDULE
    yield "dags/hello.yaml", _DAG
    for name, text in schema_texts():
        yield f".tickpool/{name}", text


def _write_all(root: Path, files: dict[str, str]) -> None:
    """Write all of the files, or none: what was made is removed again when one cannot be. Raises AlreadyThere, OSError.

    Each has its whole text from the moment it has its name.
    """
    made: list[Path] = []
    try:
        for name, text in files.items():
            _make_directory((root / name).parent, made)
            _write(root / name, text, made)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        raise


def _make_directory(path: Path, made: list[Path]) -> None:
    for place in (*reversed(path.parents), path):
        if not place.is_dir():
            place.mkdir()
            made.append(place)


def _write(path: Path, text: str, made: list[Path]) -> None:
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(new, "x", encoding="utf-8") as file:
            file.write(text)
        # A link, unlike a rename, takes no other file's place.
        os.link(new, path)
    except FileExistsError:
        raise AlreadyThere(str(path)) from None
    finally:
        new.unlink(missing_ok=True)
    made.append(path)


def _add_init(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", type=Path, default=Path(), help="where (default: here)")


COMMANDS = {"init": Command("make a schedule and a DAG to begin with", _init, _add_init)}
