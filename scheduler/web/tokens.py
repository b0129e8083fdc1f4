"""Who may use the dashboard: a file of tokens, and the signed sessions that a login gives for one."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from workers.errors import TickpoolError

__all__ = ["ROLES", "BadTokens", "Tokens", "User", "make_tokens", "read_tokens"]

ROLES = ("viewer", "operator")
_LEAST_CHARS = 16
_SESSION_S = 12 * 3600
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
    """The tokens of a file. Sessions are signed with what the file says, so another token ends them all."""

    def __init__(self, users: dict[str, User]) -> None:
        self._users = users
        text = json.dumps(sorted((token, *user) for token, user in users.items()))
        self._key = hashlib.sha256(b"tickpool session" + text.encode()).digest()

    def user_of(self, token: str) -> User | None:
        """Return whose token it is, in a time that tells nothing of the tokens."""
        found = None
        for known, user in self._users.items():
            if hmac.compare_digest(known.encode(), token.encode()):
                found = user
        return found

    def session_for(self, user: User) -> str:
        """Return the value of a cookie that stands for a user for twelve hours."""
        body = base64.urlsafe_b64encode(json.dumps([*user, int(time.time()) + _SESSION_S]).encode())
        return f"{body.decode()}.{self._sign(body)}"

    def user_of_session(self, value: str) -> User | None:
        """Return whom a session stands for; None for one that is over, or that nobody has signed."""
        body, _, sign = value.partition(".")
        if not hmac.compare_digest(self._sign(body.encode()).encode(), sign.encode()):
            return None
        name, role, until = json.loads(base64.urlsafe_b64decode(body))
        return User(name, role) if time.time() < until else None

    def _sign(self, body: bytes) -> str:
        return hmac.new(self._key, body, hashlib.sha256).hexdigest()


def read_tokens(path: Path) -> Tokens:
    """Read a file of lines `NAME ROLE TOKEN`. Raises BadTokens."""
    try:
        if os.stat(path).st_mode & 0o077:
            raise BadTokens(path, 0, "others may read it; `chmod 600` it")
        lines = path.read_text("utf-8").splitlines()
    except OSError as error:
        raise BadTokens(path, 0, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadTokens(path, 0, "is not UTF-8") from None
    users: dict[str, User] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if len(words) != 3 or words[1] not in ROLES or not _NAME.fullmatch(words[0]):
            raise BadTokens(path, number, "write `NAME viewer TOKEN` or `NAME operator TOKEN`")
        if len(words[2]) < _LEAST_CHARS:
            raise BadTokens(path, number, f"the token is shorter than {_LEAST_CHARS} characters")
        users[words[2]] = User(words[0], words[1])
    if not users:
        raise BadTokens(path, 0, "has no token; write `NAME operator TOKEN`")
    return Tokens(users)


def make_tokens(path: Path, name: str) -> None:
    """Write a file with one operator's token, unless there is one. Raises OSError."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    with open(fd, "w", encoding="utf-8") as file:
        file.write("# NAME ROLE TOKEN: who may use the dashboard; ROLE is viewer or operator\n")
        file.write(f"{name} operator {secrets.token_urlsafe(24)}\n")
