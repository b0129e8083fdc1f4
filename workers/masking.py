"""Secrets kept out of what is written: the forms a value takes in text, and the filter that puts `***` in their place.

The filter works on bytes that come in pieces and says the same as if they had come at once: of the end of a piece it
keeps back what may be the beginning of a form, and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import re
import traceback
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, quote_plus

from .errors import TickpoolError

__all__ = ["MASK", "MIN_BYTES", "Mask", "MaskedError", "MaskedStream", "forms_of"]

MASK = b"***"
# Shorter ones stand in every other line by chance.
MIN_BYTES = 4
_MIN_LINE_BYTES = 8
_HEAD_BYTES = 8
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
# What urllib, strict quoters, JavaScript's encodeURIComponent, and quoters of a whole URL leave as it is.
_QUOTERS_LEAVE = ("/", "", "!'()*", "".join(map(chr, range(33, 127))))


class MaskedError(TickpoolError):
    """An error whose text held a secret: (its text without it)."""

    def __str__(self) -> str:
        return str(self.args[0])


def forms_of(value: bytes) -> set[bytes]:
    """Return what is to be masked for a secret: the value, its long lines, and how programs write the value.

    Those are base64 (both alphabets, at each of the three places in a group of three bytes, padded or not),
    URL-encoding, JSON's and Python's escapes, and the quoting of `sh -x`.
    """
    lines = [line.strip() for line in value.splitlines()]
    long_lines = {line for line in lines if len(line) >= _MIN_LINE_BYTES}
    forms = {value, *long_lines, *_base64_forms(value), *_url_forms(value), *_escaped_forms(value)}
    return {form for form in forms if len(form) >= MIN_BYTES}


def _base64_forms(value: bytes) -> Iterator[bytes]:
    for shift in range(3):
        padded = b64encode(bytes(shift) + value)
        bare = padded.rstrip(b"=")
        # Not the characters that mix bits of the value with bits of what stands before or after it.
        first = (8 * shift + 5) // 6
        last = len(bare) - (bare != padded)
        for form in (padded[first:], bare[first:], bare[first:last]):
            yield form
            yield form.translate(_URL_SAFE)


def _url_forms(value: bytes) -> Iterator[bytes]:
    texts = [quote(value, safe=safe) for safe in _QUOTERS_LEAVE]
    texts += [quote_plus(value), quote_plus(value, safe="*")]
    for text in texts:
        yield text.encode("ascii")
        yield re.sub(r"%..", lambda code: code[0].lower(), text).encode("ascii")


def _escaped_forms(value: bytes) -> Iterator[bytes]:
    text = value.decode("utf-8", "surrogateescape")
    in_json = json.dumps(text)[1:-1]
    texts = [
        *(in_json, in_json.replace("/", "\\/"), json.dumps(text, ensure_ascii=False)[1:-1]),
        re.sub(r"\\u(....)", lambda code: f"\\u{code[1].upper()}", in_json),
        *(ascii(text)[1:-1], repr(text)[1:-1], repr(value)[2:-1]),
        # `sh -x`: dash, then bash.
        *(re.sub("'+", lambda quotes: f"'\"{quotes[0]}\"'", text), text.replace("'", "'\\''")),
    ]
    # An exception's text becomes one line.
    texts.append(" ".join(text.split()))
    yield from (each.encode("utf-8", "surrogateescape") for each in texts)
    yield text.encode("utf-8", "backslashreplace")


class Mask:
    """Puts `***` in the place of secrets. It may learn more of them at any time; without any it changes nothing.

    Where forms overlap, all that they cover becomes one `***`, so no end of one is left standing.
    """

    def __init__(self, values: Iterable[bytes] = ()) -> None:
        self._forms: set[bytes] = set()
        self._heads: re.Pattern[bytes] | None = None
        self._by_head: dict[bytes, list[bytes]] = {}
        self._beginnings: set[bytes] = set()
        self._head_bytes = 0
        self.add(values)

    def add(self, values: Iterable[bytes]) -> None:
        """Learn more secrets."""
        known = len(self._forms)
        for value in values:
            self._forms |= forms_of(value)
        if len(self._forms) == known:
            return
        size = self._head_bytes = min(_HEAD_BYTES, *(len(form) for form in self._forms))
        self._by_head = {}
        for form in sorted(self._forms, key=len, reverse=True):
            self._by_head.setdefault(form[:size], []).append(form)
        self._beginnings = {head[:length] for head in self._by_head for length in range(1, size)}
        self._heads = _compile(self._by_head)

    def text(self, text: str) -> str:
        """Return a text without the secrets."""
        if self._heads is None:
            return text
        try:
            data = text.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            data = text.encode("utf-8", "surrogatepass")
        masked, _, _ = self.replace(data, 0, is_last=True)
        return text if masked == data else masked.decode("utf-8", "replace")

    def plain(self, value: Any) -> Any:
        """Return JSON-able data without the secrets: in keys, in texts, and a number that is one as a text."""
        if self._heads is None or value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(str(key)): self.plain(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [self.plain(each) for each in value]
        written = json.dumps(value)
        masked = self.text(written)
        return value if masked == written else masked

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Raise MaskedError in place of an error that would show a secret, itself or by its causes."""
        try:
            yield
        except Exception as error:
            if self._heads is not None:
                told = "".join(traceback.format_exception(error))
                if self.text(told) != told:
                    text = str(error) if isinstance(error, TickpoolError) else f"{type(error).__name__}: {error}"
                    raise MaskedError(self.text(text)) from None
            raise

    def stream(self) -> MaskedStream:
        """Return a filter for one stream of bytes."""
        return MaskedStream(self)

    def replace(self, data: bytes, covered: int, *, is_last: bool) -> tuple[bytes, bytes, int]:
        """Mask what is decided: return it, the bytes that wait for more, and how many of those are masked already.

        The first `covered` bytes are part of a secret whose `***` has been written. Nothing waits after the last.
        """
        if self._heads is None:
            return data[covered:], b"", 0
        pieces: list[bytes] = []
        written, at, undecided = covered, 0, len(data)
        while hit := self._heads.search(data, at):
            at = hit.start()
            end = self._end_of_form(data, at, hit[0], is_last=is_last)
            if end is None:
                undecided = at
                break
            if end > at and at >= written:
                pieces += (data[written:at], MASK)
            written = max(written, end) if end > at else written
            at += 1
        if undecided == len(data) and not is_last:
            undecided -= self._beginning_at_end(data)
        if not pieces and not written and undecided == len(data):
            return data, b"", 0
        pieces.append(data[written:undecided])
        return b"".join(pieces), data[undecided:], max(0, written - undecided)

    def _end_of_form(self, data: bytes, at: int, head: bytes, *, is_last: bool) -> int | None:
        """Return where the longest form at `at` ends, `at` when none stands there, None when that is not known yet."""
        left = len(data) - at
        for form in self._by_head[head]:
            if len(form) <= left:
                if data.startswith(form, at):
                    return at + len(form)
            elif not is_last and form.startswith(data[at : at + 64]) and form.startswith(data[at:]):
                return None
        return at

    def _beginning_at_end(self, data: bytes) -> int:
        """Return how many of the last bytes, too few for a head, may begin one."""
        for length in range(min(self._head_bytes - 1, len(data)), 0, -1):
            if data[-length:] in self._beginnings:
                return length
        return 0


def _compile(heads: Iterable[bytes]) -> re.Pattern[bytes]:
    # By first byte: `re` skips quickly to bytes of a set, and then tries only the branch of that byte.
    rests: dict[bytes, list[bytes]] = {}
    for head in heads:
        rests.setdefault(head[:1], []).append(re.escape(head[1:]))
    branches = (re.escape(first) + b"(?:" + b"|".join(each) + b")" for first, each in rests.items())
    return re.compile(b"|".join(branches), re.DOTALL)


class MaskedStream:
    """The filter of one stream: `feed` it, write what it returns, and write what `end` returns."""

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._waiting = b""
        self._covered = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes; return what can be written."""
        data = self._waiting + chunk if self._waiting else chunk
        said, self._waiting, self._covered = self._mask.replace(data, self._covered, is_last=False)
        return said

    def end(self) -> bytes:
        """Return what is left when nothing more comes."""
        said, self._waiting, self._covered = self._mask.replace(self._waiting, self._covered, is_last=True)
        return said
