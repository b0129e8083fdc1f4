"""Where in a shell string a `${dotted.name}` stands, so that its value can be put there without being read as code.

A scanner of the POSIX shell's quoting (XCU 2.2, 2.3, 2.6, 2.7.4), not of its grammar: quotes, backslashes, comments,
`$(...)`, backticks, `${...}`, `$((...))` and here-documents. Should it ever take one place for another, the value is
split or shown by name, but never run: what is put into the text is the name of a variable, not its value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from .errors import TickpoolError

__all__ = ["Insertion", "InvalidReference", "split_shell"]

# First names hold no `-`, since `${x-a.b}` is the shell's own default value.
_REFERENCE = re.compile(r"\$\{((?:params|run|tasks|item)\.[^}]*|[A-Za-z_]\w*(?:\.[\w-]+)+)(\}?)", re.ASCII)
_DELIMITER = re.compile(r"<<(-?)[ \t]*((?:\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|[^\s;&|()<>'\"\\])+)", re.DOTALL)
_WORD = re.compile(r"[a-z]+(?=[\s;&|()<>]|$)|[!{](?=\s)")
# After these words a command begins, so that `case` is a keyword there and not an argument (XCU 2.4).
_BEFORE_COMMAND = {"if", "then", "else", "elif", "while", "until", "do", "!", "{", "time"}

_REFUSED = {
    "brace": "it stands inside the shell's own `${...}`; give the value to a variable first (`v=${params.x}`)",
    "arithmetic": "it stands in shell arithmetic, which some shells run as code; use a `call` task or check it first",
    "raw": "it stands in a here-document with a quoted delimiter, which is not expanded; write <<EOF, not <<'EOF'",
    "nested": "it stands in backticks inside backticks; write $(...)",
}
_UNCLOSED = {
    "single": "a single quote",
    "double": "a double quote",
    "brace": "`${`",
    "arithmetic": "`$((`",
    "command": "`$(`",
    "backtick": "a backtick",
    "nested": "a backtick",
}

Kind = Literal["command", "backtick", "nested", "single", "double", "brace", "arithmetic", "heredoc", "raw"]


class InvalidReference(TickpoolError):
    """A `${...}` that cannot be one: (what stands inside, why)."""

    def __str__(self) -> str:
        return f"`${{{self.args[0][:80]}}}` is not a reference here: {self.args[1]}"


class Insertion(NamedTuple):
    """A reference and the quoting it stands in; a here-document counts as double quotes."""

    name: str
    context: Literal["unquoted", "double", "single"]


def split_shell(command: str) -> list[str | Insertion]:
    """Return the text of a shell string and, between, its references. Raises InvalidReference."""
    return _Scanner(command).scan()


class _Delimiter(NamedTuple):
    word: str
    is_quoted: bool
    strips_tabs: bool


@dataclass
class _Frame:
    kind: Kind
    end: int = 0
    parens: int = 0
    cases: int = 0
    at_command: bool = True
    pending: list[_Delimiter] = field(default_factory=list)


class _Scanner:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._start = 0
        self._word_start = 0
        self._stack = [_Frame("command")]
        self._pieces: list[str | Insertion] = []
        self._odd = ""

    def scan(self) -> list[str | Insertion]:
        while self._at < len(self._text):
            frame = self._stack[-1]
            if frame.kind in ("heredoc", "raw") and self._at >= frame.end:
                self._end_heredoc()
            elif self._text.startswith("$${", self._at):
                self._emit("{", skip=3, keep=1)
            elif match := _REFERENCE.match(self._text, self._at):
                self._refer(match, frame)
            else:
                self._step(frame, self._text[self._at])
        self._pieces.append(self._text[self._start :])
        self._check_end()
        return self._pieces

    def _check_end(self) -> None:
        """Where references are used, refuse a text whose quoting cannot be told with certainty."""
        name = next((piece.name for piece in self._pieces if isinstance(piece, Insertion)), None)
        unclosed = _UNCLOSED.get(self._stack[-1].kind) if len(self._stack) > 1 else None
        if name is not None and (unclosed or self._odd):
            raise InvalidReference(name, self._odd or f"the shell text ends inside {unclosed}; close it")

    def _emit(self, piece: str | Insertion, *, skip: int, keep: int = 0) -> None:
        self._pieces += [self._text[self._start : self._at + keep], piece]
        self._at += skip
        self._start = self._at

    def _refer(self, match: re.Match[str], frame: _Frame) -> None:
        if not match[2]:
            raise InvalidReference(match[1], "its `${` is never closed by `}`")
        if frame.kind in _REFUSED:
            raise InvalidReference(match[1], _REFUSED[frame.kind])
        frame.at_command = False
        if frame.kind == "single":
            self._emit(Insertion(match[1], "single"), skip=len(match[0]))
        elif frame.kind in ("double", "heredoc"):
            self._emit(Insertion(match[1], "double"), skip=len(match[0]))
        else:
            self._emit(Insertion(match[1], "unquoted"), skip=len(match[0]))

    def _step(self, frame: _Frame, sign: str) -> None:
        """Take what stands here as the shell would in this kind of place."""
        kind = frame.kind
        if kind == "raw":
            self._at += 1
        elif kind == "single":
            self._close_or_pass(sign == "'")
        elif sign == "\\" and not (kind in ("backtick", "nested") and self._text.startswith("\\`", self._at)):
            self._at += 2
        elif sign in "$`\\":
            self._expansion(frame, sign)
        elif kind in ("double", "heredoc"):
            self._close_or_pass(sign == '"' and kind == "double")
        elif kind == "brace":
            self._brace(sign)
        elif kind == "arithmetic":
            self._arithmetic(frame, sign)
        else:
            self._command(frame, sign)

    def _close_or_pass(self, closes: bool) -> None:
        if closes:
            self._stack.pop()
        self._at += 1

    def _open(self, kind: Kind, width: int, parens: int = 0) -> None:
        self._stack.append(_Frame(kind, parens=parens))
        self._at += width
        self._word_start = self._at

    def _expansion(self, frame: _Frame, sign: str) -> None:
        """`$...` and backticks, which mean the same in a command, in double quotes and in a here-document."""
        rest = self._text[self._at : self._at + 3]
        frame.at_command = False
        if sign == "\\":
            self._stack.pop() if frame.kind == "nested" else self._open("nested", 0)
            self._at += 2
        elif sign == "`":
            self._close_or_pass(closes=True) if frame.kind == "backtick" else self._open("backtick", 1)
        elif rest == "$((":
            self._open("arithmetic", 3, parens=2)
        elif rest.startswith("$("):
            self._open("command", 2)
        elif rest.startswith("${"):
            self._open("brace", 2)
        elif rest.startswith("$'") and frame.kind not in ("double", "heredoc"):
            self._odd = "the text uses $'...', which shells read in different ways; use '...'"
            self._at += 1
        else:
            self._at += 2 if rest[1:2] in ("#", "$", "!", "?") else 1

    def _brace(self, sign: str) -> None:
        is_quoted = any(frame.kind in ("double", "heredoc") for frame in self._stack[-2:-1])
        if sign == "'" and not is_quoted:
            self._open("single", 1)
        elif sign == '"':
            self._open("double", 1)
        else:
            self._close_or_pass(sign == "}")

    def _arithmetic(self, frame: _Frame, sign: str) -> None:
        frame.parens += {"(": 1, ")": -1}.get(sign, 0)
        self._close_or_pass(frame.parens == 0)

    def _command(self, frame: _Frame, sign: str) -> None:
        is_word_start = self._at == self._word_start
        if sign in "'\"":
            frame.at_command = False
            self._open("single" if sign == "'" else "double", 1)
        elif sign == "#" and is_word_start:
            self._comment(frame)
        elif sign == "<" and self._text.startswith("<<", self._at):
            self._redirect(frame)
        elif sign in " \t\n;&|()<>":
            self._separator(frame, sign)
        elif is_word_start and frame.at_command and (match := _WORD.match(self._text, self._at)):
            frame.cases += {"case": 1, "esac": -1}.get(match[0], 0)
            frame.at_command = match[0] in _BEFORE_COMMAND
            self._at = match.end()
        else:
            frame.at_command = False
            self._at += 1

    def _comment(self, frame: _Frame) -> None:
        """Pass a comment over; its references are left alone."""
        while self._at < len(self._text) and self._text[self._at] != "\n":
            if frame.kind in ("backtick", "nested") and self._text[self._at] == "`":
                return
            self._at += 1

    def _separator(self, frame: _Frame, sign: str) -> None:
        self._at += 1
        self._word_start = self._at
        if sign in "\n;&|()":
            frame.at_command = True
        if sign == "(":
            frame.parens += 1
        elif sign == ")" and frame.parens:
            frame.parens -= 1
        elif sign == ")" and frame.cases <= 0 and frame.kind == "command" and len(self._stack) > 1:
            self._stack.pop()
        elif sign == "\n" and frame.pending:
            self._begin_heredoc(frame)

    def _redirect(self, frame: _Frame) -> None:
        if self._text.startswith("<<<", self._at):
            self._at += 3
        elif match := _DELIMITER.match(self._text, self._at):
            word = re.sub(r"\\(.)|['\"]", r"\1", match[2], flags=re.DOTALL)
            frame.pending.append(_Delimiter(word, any(sign in match[2] for sign in "'\"\\"), bool(match[1])))
            self._at = match.end()
        else:
            self._at += 2
        self._word_start = self._at

    def _begin_heredoc(self, frame: _Frame) -> None:
        delimiter = frame.pending[0]
        indent = "\t*" if delimiter.strips_tabs else ""
        end = re.compile(rf"^{indent}{re.escape(delimiter.word)}$", re.MULTILINE).search(self._text, self._at)
        self._stack.append(
            _Frame("raw" if delimiter.is_quoted else "heredoc", end=end.start() if end else len(self._text))
        )

    def _end_heredoc(self) -> None:
        """Pass the delimiter's line over, and begin the next here-document of the same line if there is one."""
        self._stack.pop()
        newline = self._text.find("\n", self._at)
        self._at = self._word_start = newline + 1 if newline >= 0 else len(self._text)
        frame = self._stack[-1]
        frame.pending.pop(0)
        if frame.pending:
            self._begin_heredoc(frame)
