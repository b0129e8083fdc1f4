"""Output of tasks as a page shows it: pieces of text, each with the classes that its SGR sequences ask for.

ECMA-48, section 8.3.117. Colours are the sixteen of a terminal; those of the 256 and of 24 bits become the nearest of
them, for the page allows no style but its own. Sequences that move a cursor or erase a line, of which a page has
neither, are left out. Every other control character is replaced, a tab stays.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from workers.terminal import clean

__all__ = ["Part", "marked", "parts_of", "plain"]

# The classes, and the text.
Part = tuple[str, str]

# A control sequence: its parameters, and what ends it. ECMA-48, section 5.4.
_SEQUENCE = re.compile(r"\x1b\[([0-?]{0,64})([ -/]{0,8}[@-~])")
_SGR = re.compile(r"[0-9;:]*m")
_NAMES = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")
_COLOURS = (*_NAMES, *(f"bright-{name}" for name in _NAMES))
# As xterm shows them.
_RGB = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)),
    *((127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255)),
    (255, 255, 255),
)
_STEPS = (0, 95, 135, 175, 215, 255)
_STYLES = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "reverse", 9: "strike"}
_ENDS = {22: ("bold", "dim"), 23: ("italic",), 24: ("underline",), 27: ("reverse",), 29: ("strike",)}


def parts_of(text: str) -> list[Part]:
    """Return a line as pieces of text with their classes."""
    if "\x1b" not in text:
        return [("", _safe(text))] if text else []
    style: dict[str, str] = {}
    parts: list[Part] = []
    at = 0
    for found in _SEQUENCE.finditer(text):
        if found.start() > at:
            parts.append((" ".join(style.values()), _safe(text[at : found.start()])))
        if _SGR.fullmatch(found[1] + found[2]):
            _apply(style, found[1])
        at = found.end()
    if at < len(text):
        parts.append((" ".join(style.values()), _safe(text[at:])))
    return parts


def plain(text: str) -> str:
    """Return a line without its colours, safe to show."""
    return _safe(_SEQUENCE.sub("", text))


def marked(parts: list[Part], word: str) -> list[Part]:
    """Return the pieces with the class `found` where they hold a word, in whichever case."""
    pattern = re.compile(re.escape(word), re.IGNORECASE)
    return [piece for part in parts for piece in _marked(part, pattern)]


def _marked(part: Part, pattern: re.Pattern[str]) -> Iterator[Part]:
    classes, text = part
    at = 0
    for found in pattern.finditer(text):
        if found.start() > at:
            yield classes, text[at : found.start()]
        yield f"{classes} found".strip(), found[0]
        at = found.end()
    if at < len(text):
        yield classes, text[at:]


def _safe(text: str) -> str:
    return "\t".join(map(clean, text.split("\t")))


def _apply(style: dict[str, str], codes: str) -> None:
    """Take in the codes of one sequence; `style` has a class for each thing that is set."""
    numbers = [int(each) if each else 0 for each in codes.replace(":", ";").split(";")]
    while numbers:
        code = numbers.pop(0)
        if code == 0:
            style.clear()
        elif code in _STYLES:
            style[_STYLES[code]] = f"ansi-{_STYLES[code]}"
        elif code in _ENDS:
            for name in _ENDS[code]:
                style.pop(name, None)
        elif code in (38, 48):
            colour = _extended(numbers)
            if colour is not None:
                _paint(style, "fg" if code == 38 else "bg", colour)
        elif code in (39, 49):
            style.pop("fg" if code == 39 else "bg", None)
        elif 30 <= code <= 37 or 90 <= code <= 97:
            _paint(style, "fg", code % 10 + (8 if code >= 90 else 0))
        elif 40 <= code <= 47 or 100 <= code <= 107:
            _paint(style, "bg", code % 10 + (8 if code >= 100 else 0))


def _paint(style: dict[str, str], what: str, colour: int) -> None:
    style[what] = f"ansi-{_COLOURS[colour]}" if what == "fg" else f"ansi-bg-{_COLOURS[colour]}"


def _extended(numbers: list[int]) -> int | None:
    """Take the rest of a 38 or 48: `5;N`, or `2;R;G;B`; None for what is neither."""
    kind = numbers.pop(0) if numbers else 0
    if kind == 5 and numbers:
        number = numbers.pop(0)
        return number if number < 16 else _nearest(*_of_256(number)) if number < 256 else None
    if kind == 2 and len(numbers) >= 3:
        red, green, blue = numbers[:3]
        del numbers[:3]
        return _nearest(min(red, 255), min(green, 255), min(blue, 255))
    return None


def _of_256(number: int) -> tuple[int, int, int]:
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return grey, grey, grey
    cube = number - 16
    return _STEPS[cube // 36], _STEPS[cube // 6 % 6], _STEPS[cube % 6]


@lru_cache(4096)
def _nearest(red: int, green: int, blue: int) -> int:
    def distance(number: int) -> int:
        return sum((one - other) ** 2 for one, other in zip(_RGB[number], (red, green, blue), strict=True))

    return min(range(16), key=distance)
