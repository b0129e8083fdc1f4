"""Strict YAML: what the scalars mean, what is refused, and where each fault stands."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from workers import yamltree
from workers.errors import InvalidFile
from workers.units import Duration
from workers.yamlfile import Document, load_yaml


@pytest.fixture(params=["libyaml", "pure"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs a test with libyaml and, as where PyYAML was built without it, with the parser in Python."""
    if request.param == "pure":
        monkeypatch.delattr(yaml, "CBaseLoader")
    elif not hasattr(yaml, "CBaseLoader"):
        pytest.skip("PyYAML has no libyaml here")
    return str(request.param)


def load(tmp_path: Path, source: str | bytes, **options: Any) -> Document:
    file = tmp_path / "f.yaml"
    file.write_bytes(source.encode() if isinstance(source, str) else source)
    return load_yaml(file, shown_as="f.yaml", **options)


def faults(tmp_path: Path, source: str | bytes, **options: Any) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(tmp_path, source, **options)
    return str(caught.value).split("\n")


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None), ("NULL", None),
        ("0", 0), ("-7", -7), ("+3", 3), ("010", 10), ("0o17", 15), ("0x1F", 31), ("18446744073709551615", 2**64 - 1),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-2.5E-1", -0.25),
        ("on", "on"), ("yes", "yes"), ("NO", "NO"), ("10:30", "10:30"), ("2026-11-23", "2026-11-23"),
        ("1_000", "1_000"), ("tRue", "tRue"), ("-.nan", "-.nan"), ("0b11", "0b11"), ("1.2.3", "1.2.3"), ("5m", "5m"),
        ("'1'", "1"), ('"null"', "null"), ('"a\\tb"', "a\tb"), ("|\n  a\n  b", "a\nb\n"), ("=", "="), ("-x", "-x"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2_core(tmp_path: Path, written: str, value: Any) -> None:
    read = load(tmp_path, f"a: {written}\n").data["a"]
    assert read == value
    assert type(read) is type(value)


GOLDEN = [
    ("a: */5 * * * *", '1:4: a text that begins with `*` must be quoted; quote it: "*/5 * * * *"'),
    ("- cron: * * * * *  # all", '1:9: a text that begins with `*` must be quoted; quote it: "* * * * *"'),
    ("{a: */5 * * * *, b: 1}", '1:5: a text that begins with `*` must be quoted; quote it: "*/5 * * * *"'),
    ("a: *b c", '1:4: `*` begins an alias, and aliases are refused; if it is a text, quote it: "*b c"'),
    ("a: 1\nb: @daily", '2:4: a text that begins with `@` must be quoted; quote it: "@daily"'),
    ("a: %d", '1:4: a text that begins with `%` must be quoted; quote it: "%d"'),
    ("a: `x`", '1:4: a text that begins with a backtick must be quoted; quote it: "`x`"'),
    ("a: && \"b\"", "1:4: a text that begins with `&` must be quoted; quote it: '&& \"b\"'"),
    ("a: | b", '1:4: a text that begins with `|` must be quoted; quote it: "| b"'),
    ("a: ]", '1:4: a text that begins with `]` must be quoted; quote it: "]"'),
    ("a: {{ x }}", "1:5: `{{ }}` is no syntax here; write `${params.name}`, or quote the text"),
    ("a: {{ x }}-b", "1:5: `{{ }}` is no syntax here; write `${params.name}`, or quote the text"),
    ("k: value: x", '1:4: an unquoted text may not hold `: `; quote it: "value: x"'),
    ("- a: b\n- k: value: x", '2:6: an unquoted text may not hold `: `; quote it: "value: x"'),
    ("a: 1\n b: 2", "2:3: `:` is out of place here; check the indentation of this line and the one above"),
    ("a: 1\nb: 'x", "2:4: this quote is never closed"),
    ("a: 'it's'", "1:8: text after a closing quote or bracket; quote the whole value, or drop the rest"),
    ("a: [1, 2\nb: 3", "2:2: expected `,` or `]`: the `[` of line 1 is not closed before this"),
    ("a: {b: 1\nc: 2", "2:2: expected `,` or `}`: the `{` of line 1 is not closed before this"),
    ("a:\n  b: 1\n c: 2", "3:2: expected `key: value` here, in the column of the mapping that begins on line 1"),
    ("a:\n  - x\n  y: 1", "3:3: expected `- ` here, in the column of the list that begins on line 2"),
    ("a: 1\nxyz\nb: 2", "2:1: expected `:` after this; write `key: value`"),
    ("a: - x", "1:4: a list may not begin on the line of its key; begin it on the next line, or quote the text"),
    ('a: "\\d"', "1:5: in double quotes a backslash begins an escape YAML must know; double it or use single quotes"),
    ("a:\n\tb: 1", "2:1: a tab may not indent; use spaces"),
    ("a: 1\nb: 2\na: 3", "3:1: key `a` is given twice; the first is on line 1"),
    ("- {x: 1,\n   x: 2}", "2:4: key `x` is given twice; the first is on line 1"),
    ("1: x", '1:1: a key must be a text; quote it: "1"'),
    ("null: x", '1:1: a key must be a text; quote it: "null"'),
    ("[a]: x", "1:1: a key must be a text, not a list"),
    ("? {a: 1}\n: 2", "1:3: a key must be a text, not a mapping"),
    ("a: &x 1", "1:4: `&x` is an anchor, and anchors are refused; write the value out"),
    ("a: !!python/name:os.system x", "1:4: tags (`!...`) are refused; write the plain value, quoted if it is a text"),
    ("<<: {a: 1}", "1:1: merge keys (`<<`) are refused; write the keys out"),
    ("a: b\n---\nc: d", "2:1: a second YAML document begins here; one file holds one document"),
    ("a: .inf", '1:4: .inf is not a finite number; quote it to keep it as text: ".inf"'),
    ("a: 1e999", '1:4: 1e999 is not a finite number; quote it to keep it as text: "1e999"'),
    ("a: 18446744073709551616",
     '1:4: 18446744073709551616 does not fit in 64 bits; quote it to keep it as text: "18446744073709551616"'),
    ("[" * 33 + "]" * 33, "1:33: nested deeper than 32 levels"),
    ("a: x\x01y", '1:5: the character U+0001 may not stand in YAML; write it as "\\x01" in double quotes'),
    ("a: 1\nb: é\0", "2:5: a NUL byte may not stand in YAML"),
    (b"a: 1\n\xc3\xa9\xff: 2", "2:2: the byte 0xff is not UTF-8; save the file as UTF-8"),
    ("a: 1".encode("utf-16"), "1:1: begins with a UTF-16 byte order mark; save the file as UTF-8"),
]  # fmt: skip


@pytest.mark.parametrize(("source", "fault"), GOLDEN)
def test_a_fault_is_one_line_with_its_place_and_remedy(tmp_path: Path, source: str | bytes, fault: str) -> None:
    assert faults(tmp_path, source) == [f"f.yaml:{fault}"]


@pytest.mark.parametrize("source", [source for source, _ in GOLDEN])
def test_the_parser_in_python_refuses_the_same_on_the_same_line(
    tmp_path: Path, source: str | bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = faults(tmp_path, source)[0].split(":")[1]
    monkeypatch.delattr(yaml, "CBaseLoader")
    assert faults(tmp_path, source)[0].split(":")[1] == line


@pytest.mark.usefixtures("parser")
def test_all_faults_of_structure_are_told_at_once_in_order(tmp_path: Path) -> None:
    told = faults(tmp_path, "a: &x 1\nb: *x\na: .nan\n1: !t y\n")
    assert [fault.split(":")[1] for fault in told] == ["1", "2", "3", "3", "4", "4"]


def test_after_a_hundred_faults_the_rest_is_not_read(tmp_path: Path) -> None:
    told = faults(tmp_path, "- *a\n" * 1000)
    assert len(told) == 101
    assert told[-1] == "f.yaml:100:3: too many faults; read no further"


@pytest.mark.parametrize("source", ["", "# only a comment\n", "\n\n", "---\n", "\ufeff", "\ufeff# x\n"])
def test_a_file_that_says_nothing_is_none(tmp_path: Path, source: str) -> None:
    assert load(tmp_path, source).data is None


def test_a_byte_order_mark_is_taken_off_and_moves_no_column(tmp_path: Path) -> None:
    document = load(tmp_path, "\ufeffa: b\r\nc: d\r\n")
    assert document.data == {"a": "b", "c": "d"}
    assert document.fault(("a",), "x", key=True)[1:3] == (1, 1)
    assert document.fault(("c",), "x")[1:3] == (2, 4)


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "secret").write_text("a: 1")
    (tmp_path / "loop").symlink_to("loop")
    told = {}
    for name in ("fifo", ".", "missing", "loop", "secret/x", "a\0b"):
        with pytest.raises(InvalidFile) as caught:
            load_yaml(tmp_path / name, shown_as="f")
        told[name] = str(caught.value)
    assert told == {
        "fifo": "f: is not a regular file; name a YAML file",
        ".": "f: is a directory; name a YAML file",
        "missing": "f: cannot be read: No such file or directory",
        "loop": "f: cannot be read: Too many levels of symbolic links",
        "secret/x": "f: cannot be read: Not a directory",
        "a\0b": "f: is no path: embedded null byte",
    }


def test_a_file_over_the_cap_is_refused_and_one_at_it_is_read(tmp_path: Path) -> None:
    assert load(tmp_path, "a: 12345", max_bytes=8).data == {"a": 12345}
    assert faults(tmp_path, "a: 123456", max_bytes=8) == ["f.yaml: is larger than 8 bytes, the most that is read"]


@pytest.mark.usefixtures("parser")
def test_every_value_and_key_knows_its_line_and_column(tmp_path: Path) -> None:
    document = load(tmp_path, "- a: 1\n  b: [x, {c: 'y'}]\n-   d:\n      - z\n")
    places = {
        (0,): (1, 3), (1,): (3, 5), (0, "a"): (1, 6), (0, "b"): (2, 6), (0, "b", 1, "c"): (2, 14), (1, "d", 0): (4, 9),
    }  # fmt: skip
    assert {at: document.fault(at, "")[1:3] for at in places} == places
    assert document.fault((0, "b"), "", key=True)[1:3] == (2, 3)
    assert document.fault((0, "b", 1, "c"), "", key=True)[1:3] == (2, 11)
    assert document.fault((0, "missing", "x"), "")[1:3] == (1, 3)


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    max: Annotated[int, msgspec.Meta(ge=0)] = 0
    delay: Duration = Duration()


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    mode: Literal["skip", "queue"] = "skip"
    names: tuple[str, ...] = ()
    codes: tuple[int, ...] = ()
    env: dict[str, str] = {}
    anything: dict[str, Any] = {}
    retries: Inner = Inner()
    timeout: Duration | None = None
    run: str | tuple[str, ...] | None = None
    ratio: float = 0.0
    on: bool = False
    parts: tuple["Outer", ...] = ()  # noqa: UP037 - the class is not there yet
    own: str = ""


def model(tmp_path: Path, source: str) -> tuple[Outer | None, list[str]]:
    document = load(tmp_path, source)
    value, found = document.model((), Outer, "thing `t`", later={"foreach": "", "pool": "use `x`"}, internal=("own",))
    return value, [str(fault) for fault in found]


def test_a_good_mapping_becomes_the_struct(tmp_path: Path) -> None:
    source = "id: a\nmode: queue\nretries: {max: 2, delay: 1m30s}\ntimeout: 5\nparts: [{id: b}]\nrun: [x, y]\nratio: 1"
    assert model(tmp_path, source) == (
        Outer("a", "queue", retries=Inner(2, Duration(seconds=90)), timeout=Duration(seconds=5), parts=(Outer("b"),),
              run=("x", "y"), ratio=1.0),
        [],
    )  # fmt: skip


def test_where_a_text_is_expected_a_number_or_boolean_counts_as_it_is_written(tmp_path: Path) -> None:
    value, _ = model(tmp_path, "id: 010\nenv: {A: 1.10, B: true, C: 0x1F, D: x}\nnames: [1e3, No, true]\nrun: [a, 5]")
    assert value == Outer("010", env={"A": "1.10", "B": "true", "C": "0x1F", "D": "x"}, names=("1e3", "No", "true"),
                          run=("a", "5"))  # fmt: skip


def test_one_scalar_stands_for_a_list_of_one(tmp_path: Path) -> None:
    assert model(tmp_path, "id: a\nnames: b\ncodes: 3")[0] == Outer("a", names=("b",), codes=(3,))


def test_every_fault_of_a_mapping_is_told_with_place_value_and_rule(tmp_path: Path) -> None:
    source = """\
mode: skp
names: {a: 1}
codes: [1, x, null]
env: {A: null, B: [1]}
retries: {max: -1, delay: soon, dealy: 1s}
timeout: 3 days
run: {a: 1}
ratio: high
on: 1
foreach: [1]
pool: p
own: mine
xyz: 1
parts: [{mode: skip}, {id: q, codes: {}}, 3]
"""
    value, found = model(tmp_path, source)
    allowed = "allowed: anything, codes, env, id, mode, names, on, parts, ratio, retries, run, timeout"
    duration = "is not a duration; write a number with ms, s, m, h, d or w (`90s`, `1h30m`), at most 10 years"
    assert value is None
    assert found == [
        "f.yaml:10:1: thing `t`: `foreach` is not available in this version",
        "f.yaml:11:1: thing `t`: `pool` is not available in this version; use `x`",
        "f.yaml:12:1: thing `t`: unknown key `own`; did you mean `on`?",
        f"f.yaml:13:1: thing `t`: unknown key `xyz`; {allowed}",
        "f.yaml:1:1: thing `t`: `id` is missing",
        'f.yaml:1:7: thing `t`: `mode`: "skp" is not one of its values; did you mean `skip`?',
        "f.yaml:2:8: thing `t`: `names`: expected a list of texts, got a mapping",
        'f.yaml:3:12: thing `t`: `codes[1]`: expected a whole number, got "x"',
        "f.yaml:3:15: thing `t`: `codes[2]`: expected a whole number, got nothing",
        "f.yaml:4:10: thing `t`: `env.A`: expected a text, got nothing",
        "f.yaml:4:19: thing `t`: `env.B`: expected a text, got a list",
        "f.yaml:5:33: thing `t`: unknown key `retries.dealy`; did you mean `delay`?",
        "f.yaml:5:16: thing `t`: `retries.max`: expected a whole number from 0, got -1",
        f"f.yaml:5:27: thing `t`: `retries.delay`: 'soon' {duration}",
        f"f.yaml:6:10: thing `t`: `timeout`: '3 days' {duration}",
        "f.yaml:7:6: thing `t`: `run`: expected a text or a list of texts, got a mapping",
        'f.yaml:8:8: thing `t`: `ratio`: expected a number, got "high"',
        "f.yaml:9:5: thing `t`: `on`: expected true or false, got 1",
        "f.yaml:14:9: outer 1: `id` is missing",
        "f.yaml:14:38: outer `q`: `codes`: expected a list of whole numbers, got {}",
        "f.yaml:14:43: outer 3: expected a mapping, got 3",
    ]


def test_what_is_no_mapping_is_told_as_such(tmp_path: Path) -> None:
    assert model(tmp_path, "- a")[1] == ["f.yaml:1:1: thing `t`: expected a mapping, got a list"]


def plain_or_faults(file: Path) -> Any:
    try:
        return load_yaml(file).data
    except InvalidFile as error:
        found = error
    assert found.faults
    assert all(fault.message and "\n" not in fault.message for fault in found.faults)
    return found


@settings(max_examples=400, deadline=None)
@given(source=st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
    st.text(st.sampled_from("ab1.:-?,[]{}#&*!|>'\"%@` \n\t\\~<=0x"), max_size=120).map(str.encode),
    st.lists(st.sampled_from(["a: ", "- ", "\n", "  ", "1", "x", "{", "}", "[", "]", "? ", "'", '"', "&a ", "*a", "!t ",
                              "|\n", "<<: ", "---\n", "...\n", "%YAML 1.1\n", "# c", ": ", ".inf", "\r\n", "\u2028"]),
             max_size=40).map(lambda parts: "".join(parts).encode()),
))  # fmt: skip
@example(source=b"? ? ? ? a")
@example(source=b'"\\ud800": 1')
@example(source=b"a: 1\n\xef\xbb\xbfb: 2\n")
def test_any_bytes_are_data_or_an_invalid_file_and_both_readings_agree(tmp_path_factory: Any, source: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    file.write_bytes(source)
    read = plain_or_faults(file)
    if not isinstance(read, InvalidFile):
        json.dumps(read, allow_nan=False).encode()
        text = source.decode().removeprefix("\ufeff")
        slow = yamltree.survey(text.encode(), text)
        assert slow.faults == []
        assert slow.data == read


# Without the cap some would take hours.
@pytest.mark.timeout(60)
@pytest.mark.parametrize("source", [
    "[" * 200_000, "{" * 200_000, "- " * 200_000, "? " * 200_000, "[\n" * 100_000, "a: " * 100_000, "&a " * 100_000,
    "a: [" + "*a, " * 200_000, "'" * 500_000, "a: |\n" + " x\n" * 200_000, '"' + "\\x41" * 200_000 + '"',
    "".join(f"k{n}: 1\nk{n}: 2\n" for n in range(20_000)), "9" * 900_000, "1." + "9" * 900_000, "a: b: " * 100_000,
    "- &a 1\n" * 50_000, "- *\n" * 100_000, "- 'a\n" * 100_000, "<<" * 300_000, "#" * 900_000, "\n" * 900_000,
])  # fmt: skip
def test_a_hostile_file_under_the_cap_is_dealt_with(tmp_path: Path, source: str) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(source)
    plain_or_faults(file)


def test_a_fault_in_a_large_list_costs_one_second_reading_and_items_cost_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = load(tmp_path, "".join(f"- id: s{n}\n  dag: x\n" for n in range(2000)))
    readings = []
    survey = yamltree.survey

    def counted(source: bytes, text: str) -> yamltree.Survey:
        readings.append(1)
        return survey(source, text)

    monkeypatch.setattr("workers.yamlfile.survey", counted)
    assert [document.fault((n,), "").line for n in range(2000)] == list(range(1, 4001, 2))
    assert readings == []
    assert [document.fault((n, "dag"), "").line for n in range(2000)] == list(range(2, 4001, 2))
    assert readings == [1]
