"""Secrets out of sight: the forms of a value, and the filter that says the same however its bytes come."""

from __future__ import annotations

import base64
import json
import pickle
import shlex
import subprocess
import urllib.parse
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.masking import MASK, Mask, MaskedError, forms_of

VALUE = b"S3cr3t+/?> p\xc3\xa4ss'w\"rd\\n"
KEY = b"-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG\n  c2Vjb25kIGxpbmU=\n}\n-----END KEY-----"
TEXT = VALUE.decode()


def masked(mask: Mask, data: bytes, *cuts: int) -> bytes:
    """Return what a stream says of data that comes in pieces."""
    stream = mask.stream()
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    said = [stream.feed(data[start:end]) for start, end in pairwise(places)]
    return b"".join(said) + stream.end()


def by_definition(forms: set[bytes], data: bytes) -> bytes:
    """Mask the slow way: find every form everywhere, join what overlaps."""
    places: list[list[int]] = []
    found = [(at, at + len(form)) for form in forms for at in range(len(data)) if data.startswith(form, at)]
    for start, end in sorted(found):
        if places and start < places[-1][1]:
            places[-1][1] = max(end, places[-1][1])
        else:
            places.append([start, end])
    for start, end in reversed(places):
        data = data[:start] + MASK + data[end:]
    return data


WRITTEN = {
    "as it is": VALUE,
    "base64": base64.b64encode(VALUE),
    "base64 for URLs": base64.urlsafe_b64encode(VALUE),
    "base64 without padding": base64.b64encode(VALUE).rstrip(b"="),
    "URL": urllib.parse.quote(VALUE).encode(),
    "URL, all of it": urllib.parse.quote(VALUE, safe="").encode(),
    "URL in lower case": b"S3cr3t%2b%2f%3f%3e%20p%c3%a4ss%27w%22rd%5cn",
    "form": urllib.parse.quote_plus(VALUE).encode(),
    "encodeURIComponent": urllib.parse.quote(VALUE, safe="!'()*").encode(),
    "JSON": json.dumps(TEXT)[1:-1].encode(),
    "JSON in UTF-8": json.dumps(TEXT, ensure_ascii=False)[1:-1].encode(),
    "JSON with escaped slashes": json.dumps(TEXT)[1:-1].replace("/", "\\/").encode(),
    "Python": repr(TEXT)[1:-1].encode(),
    "Python, ASCII": ascii(TEXT)[1:-1].encode(),
    "Python, bytes": repr(VALUE)[2:-1].encode(),
    "sh -x": shlex.quote(TEXT)[1:-1].encode(),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_value_is_masked_however_it_is_written(how: str) -> None:
    mask = Mask([VALUE])
    line = b"before " + WRITTEN[how] + b" after\n"
    assert masked(mask, line).rstrip(b"=") in (b"before *** after\n", b"before ***= after\n", b"before ***== after\n")
    for cut in range(len(line)):
        assert masked(mask, line, cut) == masked(mask, line), cut


@pytest.mark.parametrize("before", ["", "u", "us", "usr", "user:"])
@pytest.mark.parametrize("after", ["", "1", "12", "123"])
def test_base64_of_a_text_around_a_value_shows_none_of_its_bytes(before: str, after: str) -> None:
    value = b"hunter2-hunter2"
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        written = encode(before.encode() + value + after.encode())
        said = masked(Mask([value]), written)
        assert MASK in said
        left = len(written) - (len(said) - len(MASK))
        # All but the characters, at most one at each end, that mix its bits with others'.
        assert left >= len(value) * 8 // 6 - 1
        assert not any(value[at : at + 3] in base64.b64decode(said.partition(MASK)[0] + b"==") for at in range(13))


@pytest.mark.parametrize("shell", [["sh", "-c"], ["bash", "-c"]])
@pytest.mark.parametrize("value", ["it's a ''secret''", "plain-secret", "white space\ttab", 'dollar$ "quoted"'])
def test_what_a_shell_traces_is_masked(shell: list[str], value: str) -> None:
    script = 'set -x; : "$SECRET"; curl() { :; }; curl -u "me:$SECRET" http://x'
    ran = subprocess.run([*shell, script], env={"SECRET": value}, stderr=subprocess.PIPE, check=True, timeout=10)
    said = masked(Mask([value.encode()]), ran.stderr)
    words = [word for word in value.replace("'", " ").split() if len(word) > 3]
    assert said.count(MASK) >= 2
    assert not any(word.encode() in said for word in words)


def test_each_long_line_of_a_value_is_masked_and_short_ones_are_not() -> None:
    mask = Mask([KEY])
    assert masked(mask, b"<" + KEY + b">") == b"<***>"
    said = masked(mask, b"> MIIBVgIBADANBgkqhkiG\r\n>\tc2Vjb25kIGxpbmU=\r\n> }\r\n")
    assert said == b"> ***\r\n>\t***\r\n> }\r\n"


def test_secrets_that_overlap_leave_nothing_of_either() -> None:
    mask = Mask([b"user:pass", b"pass@host", b"pass"])
    assert masked(mask, b"x user:pass@host y") == b"x *** y"
    assert masked(mask, b"pass pass@host user:passpass") == b"*** *** ******"
    assert masked(Mask([b"abab"]), b"xabababababy") == b"x***y"


FORM = st.binary(min_size=4, max_size=9).map(lambda data: bytes(b"ab\n/"[byte % 4] for byte in data))


@settings(max_examples=400, deadline=None)
@given(st.lists(FORM, min_size=1, max_size=3), st.data())
def test_a_stream_says_the_same_however_it_is_cut(values: list[bytes], data: st.DataObject) -> None:
    forms = set().union(*(forms_of(value) for value in values))
    part = st.sampled_from(sorted(forms)) | FORM
    piece = part | st.builds(lambda form, length: form[:length], part, st.integers(1, 9))
    text = b"".join(data.draw(st.lists(piece, max_size=10)))
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=20))
    assert masked(Mask(values), text, *cuts) == by_definition(forms, text)
    assert masked(Mask(values), text, *range(len(text))) == by_definition(forms, text)


def test_a_line_without_its_end_is_said_at_once_and_only_the_beginning_of_a_form_waits() -> None:
    stream = Mask([b"hunter2-hunter2", KEY * 100]).stream()
    assert stream.feed(b"progress: 10 %") == b"progress: 10 %"
    assert stream.feed(b" password hunter2-h") == b" password "
    assert stream.feed(b"orse ") == b"hunter2-horse "
    assert stream.feed(b"hunter2-hunter2") == MASK
    assert stream.feed(b"hunt") == b""
    assert stream.end() == b"hunt"


def test_output_without_end_that_is_all_secret_is_kept_nowhere() -> None:
    stream = Mask([b"a" * 64]).stream()
    said = b"".join(stream.feed(b"a" * 1000) for _ in range(100))
    assert said == MASK
    assert len(stream._waiting) < 64
    assert stream.end() == b""


def test_plain_data_is_masked_in_keys_texts_and_numbers() -> None:
    mask = Mask([b"hunter2-hunter2", b"12345678"])
    plain = {"a": ["x hunter2-hunter2", None, True, 1.5, 7], "hunter2-hunter2": {"pin": 12345678, "near": 1234567}}
    assert mask.plain(plain) == {"a": ["x ***", None, True, 1.5, 7], "***": {"pin": "***", "near": 1234567}}
    assert mask.text("half a pair \ud83d is no hunter2-hunter2") == "half a pair ??? is no ***".replace("?", "\ufffd")
    assert mask.text("\udcff stays") == "\udcff stays"


def test_a_mask_without_secrets_changes_nothing() -> None:
    mask = Mask()
    plain = {"a": [1, "x"]}
    assert mask.plain(plain) is plain
    assert masked(mask, b"all\0bytes\xff") == b"all\0bytes\xff"
    with pytest.raises(KeyError, match="untouched"), mask.errors():
        raise KeyError("untouched")


def test_a_mask_that_learns_more_masks_more() -> None:
    mask = Mask([b"first-value"])
    stream = mask.stream()
    assert stream.feed(b"first-value ") == b"*** "
    mask.add([b"other-value"])
    assert stream.feed(b"first-value other-value.") == b"*** ***."


def test_an_error_that_shows_a_secret_is_raised_without_it_and_without_its_causes() -> None:
    mask = Mask([b"hunter2-hunter2"])

    with pytest.raises(MaskedError) as caught, mask.errors():
        raise ValueError("no database") from OSError("cannot reach db://me:hunter2-hunter2@host")
    assert str(caught.value) == "ValueError: no database"
    assert caught.value.__suppress_context__
    assert str(pickle.loads(pickle.dumps(caught.value))) == "ValueError: no database"
    with pytest.raises(MaskedError, match=r"^ValueError: no \*\*\*$"), mask.errors():
        raise ValueError("no hunter2-hunter2")
    with pytest.raises(ValueError, match="no database"), mask.errors():
        raise ValueError("no database")
