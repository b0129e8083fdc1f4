"""The task kind `http`: one request, in a forked child; the answer's status decides, and becomes the outputs."""

from __future__ import annotations

import codecs
import json
import logging
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from workers.dag import Task
from workers.masking import Mask

from . import BadOutputs, Scene, Started, as_outputs, forked
from .forked import REASON_CHARS, Report, say
from .request import Request, lookup_of, request_of

if TYPE_CHECKING:
    from .exchange import Answer

__all__ = ["Page", "judge_page", "load_client", "start"]

_BODY_BYTES = 16 * 1024
_SHOWN_CHARS = 2000
_JSON = re.compile(r"application/([\w.+-]+\+)?json\s*(;|$)", re.IGNORECASE)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:-]{1,40})", re.IGNORECASE)
# What a page may be written in. Python knows more, such as `unicode_escape`, which decode into what is no text.
_CODEC = re.compile(r"ascii|utf-(8|16|32)(-.*)?|(iso8859-|cp|koi8-|mac-|gb|big5|euc_|shift_jis|iso2022).*|hz")


class Page(NamedTuple):
    """What has come of a request: why it is not good (None: it is), in words how it ended, its outputs; and of an
    answer that is not good how it begins.
    """

    reason: str | None
    said: str
    outputs: dict[str, Any]
    shown: str = ""


def start(task: Task, scene: Scene, output: int) -> Started:
    """Start the request in a forked child. Raises CannotStart, TickpoolError."""
    request = request_of(task.http or "", lookup_of(task, scene))
    load_client()
    return forked.start(lambda: _run_in_child(request, scene.mask), scene.env, output)


def load_client() -> None:
    """Import what makes requests, so that the children of this process are born with it.

    That is once in the life of a worker, and no worker without a request pays for it.
    """
    from . import exchange  # noqa: F401


def _run_in_child(request: Request, mask: Mask) -> tuple[int, Report]:
    say(f"{request.method} {request.address.url}")
    page = judge_page(request, mask, say)
    say(page.said)
    if page.shown:
        say(page.shown)
    if page.reason is None:
        return 0, Report(outputs=page.outputs)
    return 1, Report(reason=mask.text(page.reason)[:REASON_CHARS])


def judge_page(request: Request, mask: Mask, say: Callable[[str], None]) -> Page:
    """Make a request and judge the answer; `say` gets a line for each redirect. For the child of a task."""
    from . import exchange

    # urllib3 warns of headers that it cannot read, with a traceback.
    logging.disable()
    try:
        answer = exchange.ask(request, say)
    except exchange.NoAnswer as error:
        return Page(str(error), str(error), {})
    status, size = exchange.in_words(answer.status), f"{len(answer.body)} bytes"
    if not answer.is_whole:
        size = f"more than {size}, of which the rest was not read"
    said = f"{status}, {size}, {answer.took_s:.2f} s"
    text = _text_of(answer)
    masked = _masked(text, answer, mask)
    if request.is_good(answer.status):
        return Page(None, said, _outputs_of(answer, text, masked))
    return Page(f"{status}; expected {' or '.join(request.expect)}", said, {}, masked[:_SHOWN_CHARS].rstrip())


def _text_of(answer: Answer) -> str:
    declared = _CHARSET.search(answer.content_type)
    decoder = _decoder(declared[1] if declared else "utf-8")
    return decoder.decode(answer.body, final=answer.is_whole).removeprefix("\ufeff")


def _masked(text: str, answer: Answer, mask: Mask) -> str:
    """Return a body without secrets, and of one that was cut, without what may be the beginning of one: it is to be
    cut once more, which could leave half a secret.
    """
    filtered = mask.stream()
    data = filtered.feed(text.encode("utf-8", "replace"))
    return (data + filtered.end() if answer.is_whole else data).decode("utf-8", "replace")


def _decoder(charset: str) -> codecs.IncrementalDecoder:
    try:
        found = codecs.lookup(charset)
    except (LookupError, ValueError):
        found = codecs.lookup("utf-8")
    name = found.name if _CODEC.fullmatch(found.name) else "utf-8"
    return codecs.getincrementaldecoder(name)("replace")


def _outputs_of(answer: Answer, text: str, masked: str) -> dict[str, Any]:
    outputs = {"status": answer.status, "body": _cut(masked)}
    if not answer.is_whole or not _JSON.match(answer.content_type):
        return outputs
    try:
        return as_outputs({**outputs, "json": msgspec.json.decode(text)})
    except (msgspec.DecodeError, RecursionError, BadOutputs):
        return outputs


def _cut(text: str) -> str:
    """Return the text, or as much of it as takes 16 KiB in an event: there `é` is six bytes long."""
    if len(json.dumps(text)) <= _BODY_BYTES:
        return text
    return text[: bisect_right(range(len(text)), _BODY_BYTES, key=lambda length: len(json.dumps(text[:length]))) - 1]
