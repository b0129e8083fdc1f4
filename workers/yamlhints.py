"""What a YAML syntax error most likely is, in one line a person can act on."""

from __future__ import annotations

import re

from yaml import YAMLError
from yaml.error import Mark, MarkedYAMLError

__all__ = ["lines_of", "quoted", "syntax_fault"]

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
# YAML 1.2, c-printable; a byte order mark is only allowed first, where the reader has taken it off.
_UNPRINTABLE = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|\ufeff")
_VALUE_BEFORE = re.compile(r"""\s*(?:- +)*[^\s"'].*:\s""")
_ALREADY_ENDED = tuple("\"'}]")
_BAD_STARTS = ("scanning an alias", "scanning an anchor", "scanning a block scalar", "scanning a directive")

Place = tuple[int, int, str]


def lines_of(text: str) -> list[str]:
    """Split at what YAML 1.1 (libyaml) counts as a line break, so that its line numbers fit."""
    return _LINE_BREAK.split(text)


def quoted(rest: str, *, in_flow: bool = False) -> str:
    """Return the unquoted text that begins `rest` as it should have been written, on at most one line."""
    text = re.split(r" #|[,\]}]" if in_flow else r" #", rest)[0].strip()[:80]
    return "'" + text.replace("'", "''") + "'" if '"' in text or "\\" in text else f'"{text}"'


def syntax_fault(error: YAMLError, text: str) -> Place:
    """Return (line, col, message) of an error of the scanner or parser, with the remedy where it can be guessed."""
    bad = _UNPRINTABLE.search(text)
    if not isinstance(error, MarkedYAMLError) or error.problem_mark is None:
        return _unprintable(text, bad.start() if bad else 0)
    lines = lines_of(text)
    problem = error.problem or "syntax error"
    context = error.context or ""
    at = error.problem_mark
    start = error.context_mark or at
    return (
        _bad_start(lines, problem, context, start, at)
        or _unclosed(problem, context, start, at)
        or _out_of_place(lines, problem, context, start, at)
        or (at.line + 1, at.column + 1, f"not valid YAML: {problem}")
    )


def _unprintable(text: str, index: int) -> Place:
    before = lines_of(text[:index])
    character = ord(text[index]) if index < len(text) else 0
    escape = f"\\x{character:02x}" if character < 256 else f"\\u{character:04x}"
    message = f'the character U+{character:04X} may not stand in YAML; write it as "{escape}" in double quotes'
    return len(before), len(before[-1]) + 1, message


def _rest(lines: list[str], mark: Mark) -> str:
    return lines[mark.line][mark.column :] if mark.line < len(lines) else ""


def _before(lines: list[str], mark: Mark) -> str:
    return lines[mark.line][: mark.column] if mark.line < len(lines) else ""


def _bad_start(lines: list[str], problem: str, context: str, start: Mark, at: Mark) -> Place | None:
    """A text that begins with a sign YAML keeps for itself, such as the `*` of a cron expression."""
    if any(words in problem for words in ("found a tab", "cannot start any token", "node content")):
        start = at
    elif not context.endswith(_BAD_STARTS):
        return None
    rest = _rest(lines, start)
    if rest.startswith("\t"):
        return start.line + 1, start.column + 1, "a tab may not indent; use spaces"
    if not rest.strip():
        return None
    fix = quoted(rest, in_flow=any(sign in _before(lines, start) for sign in "{["))
    sign = "a backtick" if rest[0] == "`" else f"`{rest[0]}`"
    return start.line + 1, start.column + 1, f"a text that begins with {sign} must be quoted; quote it: {fix}"


def _unclosed(problem: str, context: str, start: Mark, at: Mark) -> Place | None:
    if "quoted scalar" in context and ("end of stream" in problem or "unexpected document" in problem):
        return start.line + 1, start.column + 1, "this quote is never closed"
    if "unknown escape" in problem or "escape code" in problem or "hexadecimal" in problem:
        message = "in double quotes a backslash begins an escape YAML must know; double it or use single quotes"
        return at.line + 1, at.column + 1, message
    if "simple key" in context:
        return start.line + 1, start.column + 1, "expected `:` after this; write `key: value`"
    return None


def _out_of_place(lines: list[str], problem: str, context: str, start: Mark, at: Mark) -> Place | None:
    line, col = at.line + 1, at.column + 1
    before = _before(lines, at)
    message = ""
    if "{{" in before and ("block mapping" in context or "flow" in context):
        message = "`{{ }}` is no syntax here; write `${params.name}`, or quote the text"
    elif "mapping values are not allowed" in problem:
        inside = _VALUE_BEFORE.match(before)
        value = quoted(before[inside.end() :] + _rest(lines, at)) if inside else ""
        col = inside.end() + 1 if inside else col
        message = (
            f"an unquoted text may not hold `: `; quote it: {value}"
            if value
            else "`:` is out of place here; check the indentation of this line and the one above"
        )
    elif "sequence entries are not allowed" in problem:
        message = "a list may not begin on the line of its key; begin it on the next line, or quote the text"
    elif "flow sequence" in context or "flow mapping" in context:
        sign, close = ("[", "]") if "sequence" in context else ("{", "}")
        message = f"expected `,` or `{close}`: the `{sign}` of line {start.line + 1} is not closed before this"
    elif "block mapping" in context and before.rstrip().endswith(_ALREADY_ENDED):
        message = "text after a closing quote or bracket; quote the whole value, or drop the rest"
    elif "block mapping" in context:
        message = f"expected `key: value` here, in the column of the mapping that begins on line {start.line + 1}"
    elif "block collection" in context:
        message = f"expected `- ` here, in the column of the list that begins on line {start.line + 1}"
    return (line, col, message) if message else None
