"""Completion in a shell: `completion` prints what bash, zsh or fish load, which asks this module at each Tab."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from workers.errors import TickpoolError
from workers.ids import is_run_id

from .parser import Command

__all__ = ["COMMANDS", "candidates"]

_RUNS = 50
_LINES = 2000

# The command is called as it was typed, so it need not be in the PATH.
_BASH = """\
_tickpool() {
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" completion --words "$COMP_CWORD" "${COMP_WORDS[@]}" 2> /dev/null)
}
complete -o default -F _tickpool tickpool
"""
_ZSH = """\
#compdef tickpool
_tickpool() {
    local -a found
    found=("${(@f)$("${words[1]}" completion --words $((CURRENT - 1)) "${words[@]}" 2> /dev/null)}")
    if [[ -n "$found" ]]; then compadd -a found; else _files; fi
}
compdef _tickpool tickpool
"""
_FISH = """\
function __tickpool
    set -l before (commandline -opc)
    set -l word (commandline -ct)
    set -l found ($before[1] completion --words (count $before) $before "$word" 2> /dev/null)
    if set -q found[1]
        string join \\n -- $found
    else
        __fish_complete_path "$word"
    end
end
complete -c tickpool -f -a '(__tickpool)'
"""
_SCRIPTS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}


class NoShell(TickpoolError):
    """A completion for nobody."""

    def __str__(self) -> str:
        return f"completion for which shell? name {', '.join(_SCRIPTS)}"


class _Line(NamedTuple):
    """What stands before the word: the command, its positional words, the directory of the schedules."""

    command: str
    given: list[str]
    directory: Path


def _completion(options: argparse.Namespace) -> int:
    if options.words is None:
        if options.shell is None:
            raise NoShell
        print(_SCRIPTS[options.shell], end="")
        return 0
    number, *words = options.words or [""]
    if number.isdecimal() and 0 < int(number) <= len(words):
        at = int(number)
        for found in candidates(words[1:at], words[at] if at < len(words) else ""):
            print(found)
    return 0


def candidates(before: Sequence[str], word: str) -> list[str]:
    """Return what the word may become that stands behind these words of a `tickpool` command line, sorted.

    None where only a file, or something that nobody can guess, may stand.
    """
    from . import build_parser, commands

    known = commands()
    if not before:
        return _matching([*known, "--help"], word)
    if before[0] not in known:
        return []
    parser = build_parser({before[0]: known[before[0]]})
    (group,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    actions = group.choices[before[0]]._actions
    by_option = {option: action for action in actions for option in action.option_strings}
    last = by_option.get(before[-1])
    line = _read(before, by_option)
    if last is not None and last.nargs in (None, 1):
        return _matching(_values(last, line), word)
    if word.startswith("-"):
        return _matching(by_option, word)
    positional = _at([action for action in actions if not action.option_strings], len(line.given))
    found = _matching(_values(positional, line), word) if positional is not None else _matching(by_option, word)
    return [name for name in found if name not in line.given]


def _read(before: Sequence[str], by_option: Mapping[str, argparse.Action]) -> _Line:
    given: list[str] = []
    directory, words = Path("schedules"), iter(before[1:])
    for word in words:
        action = by_option.get(word)
        if action is None and not word.startswith("-"):
            given.append(word)
        elif action is not None and action.nargs is None:
            value = next(words, "")
            directory = Path(value) if word == "--dir" and value else directory
    return _Line(before[0], given, directory)


def _at(positionals: list[argparse.Action], number: int) -> argparse.Action | None:
    """Return the argument of this number; the last one may stand for any number of them."""
    if number < len(positionals):
        return positionals[number]
    return positionals[-1] if positionals and positionals[-1].nargs in ("*", "+") else None


def _matching(names: Iterable[str], word: str) -> list[str]:
    return sorted({name for name in names if name.startswith(word)})


def _values(action: argparse.Action, line: _Line) -> list[str]:
    """Return what an option or an argument may be; nothing for one that is free, such as a file."""
    if action.choices is not None:
        return [str(each) for each in action.choices]
    source = _SOURCES.get("BACKFILL" if action.dest == "backfill" else str(action.metavar))
    with suppress(TickpoolError, OSError):
        return [] if source is None else list(source(line))
    return []


def _schedules(line: _Line) -> Iterable[str]:
    from scheduler.schedules import read_configuration

    return [schedule.id for schedule in read_configuration(line.directory).schedules]


def _tenants(line: _Line) -> Iterable[str]:
    from scheduler.schedules import read_configuration

    return {schedule.tenant for schedule in read_configuration(line.directory).schedules}


def _tags(line: _Line) -> Iterable[str]:
    from scheduler.schedules import read_configuration

    return {tag for schedule in read_configuration(line.directory).schedules for tag in schedule.tags}


def _backfills(_: _Line) -> Iterable[str]:
    from workers.settings import read_settings

    from .names import read_history

    return read_history(read_settings(os.environ)).backfills.open


def _runs(line: _Line) -> Iterator[str]:
    """Yield runs that the command may be about: open ones to end or to hasten, ended ones to repeat, else the last."""
    from workers.settings import read_settings

    from .names import read_history

    settings = read_settings(os.environ)
    if line.command in ("cancel", "bump"):
        yield from filter(is_run_id, read_history(settings).runs)
        return
    yield from islice(_last_runs(settings.state_path, only_ended=line.command in ("retry", "rerun")), _RUNS)


def _last_runs(path: str, *, only_ended: bool) -> Iterator[str]:
    from scheduler.state_store import last_events

    names = ("run_finished",) if only_ended else ("run_finished", "run_started", "run_requested", "schedule_enqueued")
    found: set[str] = set()
    for event in islice(last_events(path), _LINES):
        run_id = str(event.get("run_id"))
        if event.get("event") in names and is_run_id(run_id) and run_id not in found:
            found.add(run_id)
            yield run_id


def _tasks(line: _Line) -> Iterable[str]:
    from scheduler.run_record import read_record
    from workers.ids import is_id
    from workers.settings import read_settings

    if not line.given or not is_run_id(line.given[0]):
        return []
    record = read_record(read_settings(os.environ), line.given[0])
    return () if record is None else {each["task_id"] for each in record.tasks if is_id(each.get("task_id"))}


_SOURCES: Mapping[str, Callable[[_Line], Iterable[str]]] = {
    "SCHEDULE": _schedules,
    "SCHEDULE|DAG": _schedules,
    "ID": _schedules,
    "TENANT": _tenants,
    "TAG": _tags,
    "BACKFILL": _backfills,
    "RUN": _runs,
    "TASK": _tasks,
}


def _add_completion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", nargs="?", choices=list(_SCRIPTS), help="the shell to print the script for")
    parser.add_argument(
        "--words", nargs=argparse.REMAINDER, help="N WORD...: print what the Nth word may become, for those scripts"
    )


COMMANDS = {"completion": Command("completion for bash, zsh or fish", _completion, _add_completion)}
