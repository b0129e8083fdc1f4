"""One YAML file, read strictly, whose every value knows its line and column.

Strict means YAML 1.2's core scalars (`on`, `NO`, `10:30` and `2026-11-23` stay texts, `010` is ten), one document, text
keys given once, no anchors, aliases, merge keys or tags, finite 64-bit numbers, and a cap on size and depth.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from .beneath import LiesOutside, NotRegular, open_inside
from .convert import Converter, read_duration
from .errors import Fault, InvalidFile, TickpoolError
from .ownership import foreign_faults
from .yamlhints import lines_of
from .yamltree import NotPlain, Spot, Survey, read_plain, survey

__all__ = ["MAX_BYTES", "At", "Document", "load_trusted", "load_yaml"]

MAX_BYTES = 1024 * 1024

At = tuple[str | int, ...]
T = TypeVar("T", bound=msgspec.Struct)


def load_yaml(
    path: Path, *, shown_as: str | None = None, max_bytes: int = MAX_BYTES, inside: Path | None = None
) -> Document:
    """Read one file; `shown_as` is its name in messages, `inside` a directory that no link may lead it out of.

    The data is None for a file that is empty or holds only comments. Raises InvalidFile with every fault found. Only
    regular files are read, so a FIFO or a device never blocks.
    """
    shown = shown_as or str(path)
    source = _read(path, shown, max_bytes, inside)
    text = _decode(source, shown)
    body = text.encode()
    try:
        return Document(shown, body, *read_plain(body))
    except (NotPlain, ValueError, yaml.YAMLError):
        found = survey(body, text)
    if found.faults:
        raise InvalidFile([Fault(shown, *fault) for fault in sorted(found.faults)])
    return Document(shown, body, found.data)


def load_trusted(path: Path, *, max_bytes: int = MAX_BYTES) -> tuple[Document | None, list[Fault]]:
    """Read a file as `load_yaml` does, if nobody may write it whom root would not trust; return it and its faults.

    The document is None where there are faults, and where the file is empty.
    """
    if foreign := list(foreign_faults(path)):
        return None, foreign
    try:
        document = load_yaml(path, max_bytes=max_bytes)
    except InvalidFile as error:
        return None, list(error.faults)
    return (None if document.data is None else document), []


class Document:
    """The plain data of one file (`data`, yours to change) and the way back from a path in it to line and column."""

    def __init__(self, path: str, source: bytes, data: Any, tops: Sequence[tuple[int, int]] = ()) -> None:
        self.path = path
        self.data = data
        self._source = source
        self._tops = tops

    def fault(self, at: At, message: str, *, key: bool = False) -> Fault:
        """Return a fault at the value (or the key) that the path `at` leads to, or at the nearest thing around it."""
        line, col = self._key_place(at) if key else self._place(at)
        return Fault(self.path, line, col, message)

    def text(self, at: At) -> str | None:
        """Return a scalar as it is written in the file (`1.10`), or None where there is no scalar."""
        spot = self._survey.root
        for step in at:
            if step not in spot.items:
                return None
            spot = spot.items[step]
        return spot.text

    def model(
        self,
        at: At,
        type: type[T],  # noqa: A002 - msgspec.convert's own word
        what: str,
        *,
        later: Mapping[str, str] | None = None,
        internal: Collection[str] = (),
    ) -> tuple[T | None, list[Fault]]:
        """Convert what stands at `at` into a msgspec Struct, or return None and every fault.

        `what` begins each message ("task `clean`"). `later` maps keys that are known but not available in this version
        to what to do instead (or ""). `internal` are fields a file may not set. Where a text is expected, an unquoted
        number or boolean counts as written; where a list is, one scalar stands for a list of one.
        """
        data = self.data
        for step in at:
            data = data[step]
        if isinstance(data, dict) and not any(name in data for name in internal):
            try:
                return msgspec.convert(data, type, dec_hook=read_duration), []
            except (msgspec.ValidationError, UnicodeEncodeError, TickpoolError):
                pass  # msgspec stops at its first fault and knows no lines; the converter finds them all.
        return self.convert(at, data, type, what, later=later, internal=internal)

    def convert(
        self,
        at: At,
        data: Any,
        type: type[T],  # noqa: A002
        what: str,
        *,
        later: Mapping[str, str] | None = None,
        internal: Collection[str] = (),
    ) -> tuple[T | None, list[Fault]]:
        """Convert `data` as `model` does, as if it stood at `at`."""
        converter = Converter(self.fault, self.text, later or {}, internal)
        value = converter.struct(at, data, type, what)
        return (None if converter.faults else value), converter.faults

    def _place(self, at: At) -> tuple[int, int]:
        """Return line and column; for an item of a top list without the second reading."""
        if len(at) == 1 and isinstance(at[0], int) and at[0] < len(self._tops):
            return self._tops[at[0]]
        return self._spot(at)[:2]

    @cached_property
    def _survey(self) -> Survey:
        return survey(self._source, self._source.decode())

    def _spot(self, at: At) -> Spot:
        spot = self._survey.root
        for step in at:
            if step not in spot.items:
                break
            spot = spot.items[step]
        return spot

    def _key_place(self, at: At) -> tuple[int, int]:
        around = self._spot(at[:-1])
        return around.keys.get(str(at[-1]), around[:2]) if at else around[:2]


def _read(path: Path, shown: str, max_bytes: int, inside: Path | None) -> bytes:
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        fd = os.open(path, flags) if inside is None else open_inside(path, inside)
    except LiesOutside:
        raise _whole(shown, f"lies outside the project {inside}") from None
    except NotRegular as error:
        raise _whole(shown, f"{error.strerror}; name a YAML file") from None
    except OSError as error:
        raise _whole(shown, f"cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise _whole(shown, f"is no path: {error}") from None
    try:
        mode = os.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise _whole(shown, f"is {'a directory' if stat.S_ISDIR(mode) else 'not a regular file'}; name a YAML file")
        with open(fd, "rb", closefd=False) as file:
            source = file.read(max_bytes + 1)
    except OSError as error:
        raise _whole(shown, f"cannot be read: {error.strerror or error}") from None
    finally:
        os.close(fd)
    if len(source) > max_bytes:
        raise _whole(shown, f"is larger than {max_bytes} bytes, the most that is read")
    return source


def _decode(source: bytes, shown: str) -> str:
    if source.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidFile([Fault(shown, 1, 1, "begins with a UTF-16 byte order mark; save the file as UTF-8")])
    try:
        text = source.decode()
    except UnicodeDecodeError as error:
        message = f"the byte 0x{source[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise _at(shown, source[: error.start].decode(), message) from None
    if (nul := text.find("\0")) >= 0:
        raise _at(shown, text[:nul], "a NUL byte may not stand in YAML")
    return text.removeprefix("\ufeff")


def _at(shown: str, before: str, message: str) -> InvalidFile:
    lines = lines_of(before.removeprefix("\ufeff"))
    return InvalidFile([Fault(shown, len(lines), len(lines[-1]) + 1, message)])


def _whole(shown: str, message: str) -> InvalidFile:
    return InvalidFile([Fault(shown, 0, 0, message)])
