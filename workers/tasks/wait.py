"""The task kind `wait` for a file, a port or a page: a forked child that looks, and sleeps in between."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from stat import S_ISREG
from typing import Any, NamedTuple

from workers import params
from workers.dag import Task
from workers.dag_model import Http
from workers.errors import TickpoolError
from workers.kind_rules import is_port
from workers.params import Lookup

from . import Scene, Started, forked
from .forked import Report, say
from .http import judge_page, load_client
from .request import lookup_of, request_of

__all__ = ["BadWait", "start"]

_LONGEST_CONNECT_S = 5.0
_SHORTEST_CONNECT_S = 1.0


class BadWait(TickpoolError):
    """Something that cannot be waited for: a sentence."""

    def __str__(self) -> str:
        return f"`wait`: {self.args[0]}"


class Seen(NamedTuple):
    """What a look has seen, in words for the log, and the outputs once the wait is over."""

    said: str
    outputs: dict[str, Any] | None = None


Look = Callable[[], Seen]


def start(task: Task, scene: Scene, output: int) -> Started:
    """Start to wait, in a forked child. Raises BadWait, CannotStart, TickpoolError."""
    if task.wait is None:
        raise BadWait("there is nothing to wait for")
    every_s = task.wait.every.total_seconds()
    lookup = lookup_of(task, scene)
    if task.wait.file is not None:
        look = _look_for_file(task.wait.file, scene, lookup)
    elif task.wait.port is not None:
        look = _look_for_port(task.wait.port, every_s, lookup)
    elif task.wait.http is not None:
        look = _look_for_page(task.wait.http, scene, lookup)
    else:
        raise BadWait("this is not waited for by a process")
    return forked.start(lambda: _wait(look, every_s), scene.env, output)


def _wait(look: Look, every_s: float) -> tuple[int, Report]:
    told = ""
    while True:
        seen = look()
        if seen.said != told:
            say(seen.said)
            told = seen.said
        if seen.outputs is not None:
            return 0, Report(outputs=seen.outputs)
        time.sleep(every_s)


def _look_for_file(template: str, scene: Scene, lookup: Lookup) -> Look:
    name = params.resolve_text(template, lookup)
    if not name:
        raise BadWait("`file` names no file: its references came to nothing")
    path, before = os.path.join(scene.cwd, name), None
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        raise BadWait("`file` holds half a character, a lone surrogate") from None

    def look() -> Seen:
        nonlocal before
        last, before = before, None
        try:
            stat = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return Seen(f"{name}: not there")
        except OSError as error:
            return Seen(f"{name}: cannot be looked at: {error.strerror}")
        if not S_ISREG(stat.st_mode):
            return Seen(f"{name}: not a regular file")
        before = stat.st_ino, stat.st_size, stat.st_mtime_ns
        if before != last:
            return Seen(f"{name}: growing: {stat.st_size} bytes")
        return Seen(f"{name}: there, {stat.st_size} bytes", {"path": path, "size": stat.st_size})

    return look


def _look_for_port(template: str, every_s: float, lookup: Lookup) -> Look:
    place = params.resolve_text(template, lookup)
    if not is_port(place) or not place.isprintable():
        raise BadWait(f"`port`: {place!r} is no place to connect to; write `host:port`, such as `127.0.0.1:5432`")
    host, _, port = place.rpartition(":")
    limit_s = min(max(every_s, _SHORTEST_CONNECT_S), _LONGEST_CONNECT_S)

    def look() -> Seen:
        try:
            socket.create_connection((host.strip("[]"), int(port)), limit_s).close()
        except TimeoutError:
            return Seen(f"{place}: no answer within {limit_s:g} s")
        except UnicodeError:
            return Seen(f"{place}: no name that a host can have")
        except OSError as error:
            return Seen(f"{place}: {error.strerror or error}")
        return Seen(f"{place}: accepts connections", {})

    return look


def _look_for_page(http: str | Http, scene: Scene, lookup: Lookup) -> Look:
    request = request_of(http, lookup)
    load_client()

    def look() -> Seen:
        page = judge_page(request, scene.mask, lambda _: None)
        return Seen(f"{request.address.url}: {page.reason or page.said}", page.outputs if page.reason is None else None)

    return look
