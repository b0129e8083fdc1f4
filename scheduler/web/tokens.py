"""Who may use the dashboard: a file of tokens, and the signed sessions that a login gives for one."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from workers.errors import TickpoolError

__all__ = ["ROLES", "BadTokens", "Tokens", "User", "make_tokens", "read_tokens"]

ROLES = ("viewer", "operator")
_LEAST_CHARS = 16
_SESSION_S = 12 * 3600
_MOST_SESSIONS = 10_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


class BadTokens(TickpoolError):
    """A file of tokens that cannot be used: (its path, the line or 0, what is wrong)."""

    def __str__(self) -> str:
        path, line, wrong = self.args
        return f"{path}:{line}: {wrong}" if line else f"{path}: {wrong}"


class User(NamedTuple):
    """Who asks; `role` is one of ROLES."""

    name: str
    role: str

    @property
    def is_operator(self) -> bool:
        """Say whether the user may change anything."""
        return self.role == "operator"


class Tokens:
    """The tokens of a file, and the sessions that logins have given for them: none outlives the process."""

    def __init__(self, users: Mapping[str, User]) -> None:
        self._users = {_digest(token): user for token, user in users.items()}
        self._sessions: dict[bytes, tuple[User, float]] = {}

    def user_of(self, token: str) -> User | None:
        """Return whose token it is, in a time that tells nothing of the tokens."""
        given, found = _digest(token), None
        for known, user in self._users.items():
            if hmac.compare_digest(known, given):
                found = user
        return found

    def session_for(self, user: User) -> str:
        """Return the value of a cookie that stands for a user for twelve hours."""
        value, now = secrets.token_urlsafe(32), time.monotonic()
        self._sessions = {key: each for key, each in self._sessions.items() if each[1] > now}
        if len(self._sessions) >= _MOST_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[_digest(value)] = (user, now + _SESSION_S)
        return value

    def user_of_session(self, value: str) -> User | None:
        """Return whom a session stands for; None for one that is over, or that nobody was given."""
        user, until = self._sessions.get(_digest(value), (None, 0.0))
        return user if time.monotonic() < until else None

    def end_session(self, value: str) -> None:
        """End a session, wherever its cookie may be."""
        self._sessions.pop(_digest(value), None)


def _digest(secret: str) -> bytes:
    # Two of them are of one length, and how long it takes to find one tells nothing of the secret.
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def read_tokens(path: Path) -> Tokens:
    """Read a file of lines `NAME ROLE TOKEN`. Raises BadTokens."""
    users: dict[str, User] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 3 or words[1] not in ROLES or not _NAME.fullmatch(words[0]):
            raise BadTokens(path, number, "write `NAME viewer TOKEN` or `NAME operator TOKEN`")
        if len(words[2]) < _LEAST_CHARS:
            raise BadTokens(path, number, f"the token is shorter than {_LEAST_CHARS} characters")
        if words[2] in users:
            raise BadTokens(path, number, f"`{users[words[2]].name}` has this token already")
        users[words[2]] = User(words[0], words[1])
    if not users:
        raise BadTokens(path, 0, "has no token; write `NAME operator TOKEN`")
    return Tokens(users)


def _read(path: Path) -> str:
    try:
        # A FIFO is opened without waiting for who writes to it. What is judged is what is read, though a link changes.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise BadTokens(path, 0, "is no file")
            if found.st_uid not in (0, os.geteuid()):
                raise BadTokens(path, 0, f"belongs to user {found.st_uid}, who could let anybody in; `chown` it")
            if found.st_mode & 0o077:
                raise BadTokens(path, 0, "others may read it; `chmod 600` it")
            return file.read().decode("utf-8")
    except OSError as error:
        raise BadTokens(path, 0, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadTokens(path, 0, "is not UTF-8") from None


def make_tokens(path: Path, name: str) -> None:
    """Write a file with one operator's token, unless there is one; whole or not at all. Raises BadTokens."""
    if os.path.lexists(path):
        return
    # What the system calls somebody need not be a name here.
    user = name if _NAME.fullmatch(name) else "operator"
    text = (
        "# NAME ROLE TOKEN: who may use the dashboard; ROLE is viewer or operator\n"
        f"{user} operator {secrets.token_urlsafe(24)}\n"
    )
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(fd)
            with suppress(FileExistsError):  # another dashboard was faster
                os.link(partial, path)
        finally:
            os.unlink(partial)
    except OSError as error:
        raise BadTokens(path, 0, f"cannot be made: {error.strerror}") from None
