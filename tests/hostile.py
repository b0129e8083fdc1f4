"""What an attacker writes where a name or a text is expected, and a tree outside that nobody may touch."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

# inotify(7): IN_ACCESS, IN_MODIFY, IN_ATTRIB, IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE, IN_OPEN
_TOUCHES = 0x1 | 0x2 | 0x4 | 0x40 | 0x80 | 0x100 | 0x200 | 0x20
_IS_DIR = 0x40000000
EVIL = '{"id": "evil", "tasks": [{"id": "t", "run": ["touch", "%s"]}]}'

# Names that no schedule, tenant, DAG, task or run may have.
NAMES = {
    "empty": "",
    "dot": ".",
    "dots": "..",
    "up": "../x",
    "up twice": "dags/../../x",
    "up at the end": "x/..",
    "percent": "..%2fx",
    "percent dots": "%2e%2e/x",
    "percent twice": "%252e%252e%252fx",
    "absolute": "/etc/passwd",
    "slash before": "/x",
    "slash behind": "x/",
    "backslash": "..\\x",
    "hidden": ".x",
    "option": "-rf",
    "newline": "x\ny",
    "newline behind": "x\n",
    "return": "x\ry",
    "tab": "x\ty",
    "blank": "x y",
    "escape": "x\x1b[31m",
    "c1": "x\x9b31m",
    "del": "x\x7f",
    "bidi": "x\u202efdp",
    "zero width": "x\u200by",
    "full stop": "\uff0e\uff0e\uff0fx",
    "one dot leader": "\u2024\u2024\u2215x",
    "letter": "\u0430",
    "digit": "\u0661",
    "shell": "$(touch x)",
    "home": "~root",
    "long": "x" * 4000,
}
# What YAML and JSON can carry and no path can.
NUL = {"nul": "x\0y"}

CONTROLS = "".join(map(chr, [*range(32), *range(0x7F, 0xA0)])) + "\u200e\u200f\u202a\u202b\u202c\u202d\u202e"
CONTROLS += "\u2066\u2067\u2068\u2069\u2028\u2029\ufeff"
TEXT = f"\x1b]0;owned\x07\x1b[2J\x1b[31mred\x9b31m{CONTROLS}\r\nhealth: ok"


def commands_in(printed: bytes) -> list[str]:
    """Return what a terminal would take as more than text in what was printed."""
    text = printed.decode()
    return sorted({f"U+{ord(char):04X}" for char in text if char != "\n" and not char.isprintable()})


class Outside:
    """A tree beside the project: a DAG whose task tells that it ran, and a file that nobody may write.

    The kernel notes whoever opens, makes, changes or removes a file of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.dag = root / "dags" / "evil.yaml"
        self.dag.parent.mkdir(parents=True)
        self.dag.write_text(EVIL % (root / "ran"))
        self.precious = root / "precious"
        self.precious.write_text("precious")
        libc = ctypes.CDLL(None)
        self._watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        for place in (root, self.dag.parent):
            assert libc.inotify_add_watch(self._watch, os.fsencode(place), _TOUCHES) >= 0

    def touched(self) -> list[str]:
        """Return the names of files that were touched since the last call."""
        try:
            data = os.read(self._watch, 1 << 20)
        except BlockingIOError:
            return []
        touched = []
        while data:
            _, mask, _, size = struct.unpack_from("iIII", data)
            name = data[16 : 16 + size].rstrip(b"\0").decode()
            # Directories are opened by whoever lists them.
            if name and not mask & _IS_DIR:
                touched.append(f"{name}: {mask:#x}")
            data = data[16 + size :]
        return touched

    def close(self) -> None:
        """Let the kernel forget it."""
        os.close(self._watch)
