"""`${...}` references, and that a value can never be read as code by a shell."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.params import (
    InvalidReference,
    Lookup,
    UnknownReference,
    UnusableValue,
    parse_reference,
    references,
    resolve,
    resolve_params,
    resolve_text,
    scope,
    shell,
    shell_references,
)

RUN = {"id": "r.20261123T1505Z", "fire_date": "2026-11-23", "attempt": 2}
LOOKUP = scope({"region": "eu", "n": 3, "on": True}, RUN, {"a.b-c": {"rows": [1, 2], "none": None}})

HOSTILE = [
    "",
    "plain",
    "two  words",
    "'; touch pwned; '",
    '"; touch pwned; "',
    "$(touch pwned)",
    "`touch pwned`",
    "${HOME}",
    "* ? [a-z]",
    "line\nline\n\n",
    "\\ \\n \\\\",
    "-n",
    "~",
    "#no comment",
    "EOF\ntouch pwned",
    "a'b\"c`d$e\\f\tg",
    "\x01\x7fé\u2028☃",
    ")}]; touch pwned",
]
SHELLS = sorted({os.path.realpath(path) for name in ("sh", "bash", "dash") if (path := shutil.which(name))})

# How the value is written, and how it comes out of `show`, which prints each argument between < and >.
CONTEXTS = {
    "unquoted": ("show ${params.v}", "<{}>"),
    "glued": ("show a${params.v}b", "<a{}b>"),
    "double quotes": ('show "a ${params.v} b"', "<a {} b>"),
    "single quotes": ("show 'a ${params.v} $b'", "<a {} $b>"),
    "assignment": ('x=${params.v}; show "$x"', "<{}>"),
    "substitution": ('show "$(show ${params.v}; echo .)"', "<<{}>\n.>"),
    "substitution in quotes twice": ('show "$(show "${params.v}"; echo .)"', "<<{}>\n.>"),
    "backticks": ('x=`show ${params.v}; echo .`; show "$x"', "<<{}>\n.>"),
    "backticks in quotes": ('show "`show ${params.v}; echo .`"', "<<{}>\n.>"),
    "after a comment": ("# it's ${params.v} \"\nshow ${params.v}", "<{}>"),
    "after a hash inside a word": ("show a#b'c' ${params.v}", "<a#bc>\n<{}>"),
    "here-document": ("cat <<EOF\na ' ${params.v} \" b\nEOF\nshow ${params.v}", "a ' {} \" b\n<{}>"),
    "here-document with tabs": ("cat <<-EOF; show end\n\t${params.v}\n\tEOF", "{}\n<end>"),
    "two here-documents": ("cat <<A; cat <<'B'\n${params.v}\nA\n$x'\nB\nshow '${params.v}'", "{}\n$x'\n<{}>"),
    "substitution in a here-document": ("cat <<EOF\n$(show ${params.v}; echo .)\nEOF", "<{}>\n."),
    "case": ('x="$(case ${params.v} in zz) echo zz;; *) show ${params.v}; echo .;; esac)"; show "$x"', "<<{}>\n.>"),
    "case pattern": ('case "$V" in ${params.v}) show same;; esac', "<same>"),
    "after the shell's own braces": ('show "${x:-"}"}" ${params.v} "${#HOME}" >/dev/null; show ${params.v}', "<{}>"),
    "after a quote that is none in braces": ('show "${PATH:+it\'s}" ${params.v}', "<it's>\n<{}>"),
    "subshell": ("(show ${params.v}; (show '${params.v}'))", "<{}>\n<{}>"),
    "escapes before": ('show \\\' \\" "\\"" ${params.v}', '<\'>\n<">\n<">\n<{}>'),
    "function": ('f() { show "$1"; }; f ${params.v}', "<{}>"),
    "after dollar signs": ("show $# $$ >/dev/null; show ${params.v}", "<{}>"),
    "after arithmetic": ("show $((1<<2)) ${params.v}", "<4>\n<{}>"),
}
SHOW = 'show() { printf "<%s>\\n" "$@"; }\n'


def run_shell(shell_path: str, command: str, value: str, cwd: Path) -> str:
    text, env = shell(SHOW + command, scope({"v": value}, {}, {}))
    done = subprocess.run(
        ["sh", "-c", text],
        executable=shell_path,  # bash called by the name sh keeps to POSIX, as where it is /bin/sh
        env={"PATH": os.environ["PATH"], "V": value, **env},
        cwd=cwd,
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert done.stderr == b""
    return os.fsdecode(done.stdout)


@pytest.mark.parametrize("shell_path", SHELLS)
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_hostile_value_arrives_byte_for_byte_in_every_place_of_a_shell_string(
    shell_path: str, context: str, tmp_path: Path
) -> None:
    command, form = CONTEXTS[context]
    for value in HOSTILE:
        assert run_shell(shell_path, command, value, tmp_path) == form.replace("{}", value) + "\n", value
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=40, deadline=None)
@given(value=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30))
def test_any_text_arrives_byte_for_byte_in_all_places_at_once(value: str, tmp_path_factory: Any) -> None:
    command = "show ${params.v} '${params.v}' \"${params.v}\"; cat <<E\n${params.v}\nE\n"
    cwd = tmp_path_factory.getbasetemp()
    assert run_shell("/bin/sh", command, value, cwd) == f"<{value}>\n" * 3 + f"{value}\n"


@given(command=st.text(st.sampled_from("ab ${}params.v'\"`\\()<E\n#;|&"), max_size=60))
def test_a_value_is_never_part_of_the_text_that_a_shell_reads(command: str) -> None:
    try:
        text, env = shell(command, lambda name: "VALUE")
    except InvalidReference:
        return
    assert "VALUE" not in text
    assert set(env.values()) <= {"VALUE"}
    assert len(list(shell_references(command))) == text.count("TICKPOOL_REF_")


def test_one_reference_used_twice_is_one_variable() -> None:
    assert shell("${run.id} ${params.n} '${run.id}'", LOOKUP) == (
        '"${TICKPOOL_REF_1}" "${TICKPOOL_REF_2}" \'\'"${TICKPOOL_REF_1}"\'\'',
        {"TICKPOOL_REF_1": RUN["id"], "TICKPOOL_REF_2": "3"},
    )


@pytest.mark.parametrize(
    "command",
    [
        "echo ${HOME} ${x:-y} ${x-a.b} ${file%.*} ${#x} $$ $x",
        "echo $((x.y)) ${x:-${y}}",
        "cat <<'EOF'\n${HOME}\nEOF",
        "echo 'unclosed",
        "# only a comment: ${params.nothing}",
        r"echo \${params.n}",
    ],
)
def test_what_is_the_shells_own_is_left_alone(command: str) -> None:
    assert shell(command, LOOKUP) == (command, {})


def test_a_doubled_dollar_is_a_literal_in_shell_strings_and_in_lists() -> None:
    assert shell("echo '$${params.n}' $${HOME}", LOOKUP) == ("echo '${params.n}' ${HOME}", {})
    assert resolve_text("$${params.n} $$${x}", LOOKUP) == "${params.n} $${x}"
    assert resolve({"a": ["$${HOME}"]}, LOOKUP) == {"a": ["${HOME}"]}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "cat <<'EOF'\n${params.n}\nEOF",
            "`${params.n}` is not a reference here: it stands in a here-document with a quoted delimiter, which is not"
            " expanded; write <<EOF, not <<'EOF'",
        ),
        (
            "echo ${x:-${params.n}}",
            "`${params.n}` is not a reference here: it stands inside the shell's own `${...}`; give the value to a"
            " variable first (`v=${params.x}`)",
        ),
        (
            "echo $((1 + ${params.n}))",
            "`${params.n}` is not a reference here: it stands in shell arithmetic, which some shells run as code; use a"
            " `call` task or check it first",
        ),
        (
            r"echo `echo \`echo ${params.n}\``",
            "`${params.n}` is not a reference here: it stands in backticks inside backticks; write $(...)",
        ),
        (
            "echo ${params.n} 'it",
            "`${params.n}` is not a reference here: the shell text ends inside a single quote; close it",
        ),
        (
            "echo $'a' ${params.n}",
            "`${params.n}` is not a reference here: the text uses $'...', which shells read in different ways;"
            " use '...'",
        ),
        ("echo ${params.n", "`${params.n}` is not a reference here: its `${` is never closed by `}`"),
        (
            "echo ${params.n:-x}",
            "`${params.n:-x}` is not a reference here: write `params.NAME`, `run.NAME`, `tasks.ID.outputs.NAME` or"
            " `item`; `$${` is a literal `${`",
        ),
        ("echo ${params.N}", "unknown reference `params.N`; did you mean `params.n`?"),
        ("echo ${item.x}", "unknown reference `item.x`"),
    ],
)
def test_a_reference_a_shell_string_cannot_hold_is_refused_with_the_remedy(command: str, message: str) -> None:
    with pytest.raises((InvalidReference, UnknownReference)) as caught:
        shell(command, LOOKUP)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("value", "resolved"),
    [
        ("${params.n}", 3),
        ("${params.on}", True),
        ("${tasks.a.b-c.outputs.rows}", [1, 2]),
        ("${tasks.a.b-c.outputs.none}", None),
        ("n=${params.n} ${params.on} ${tasks.a.b-c.outputs.rows}", "n=3 true [1, 2]"),
        ("${params.region}/${run.id}", "eu/r.20261123T1505Z"),
        ({"a": ["${params.n}", {"b": "x${params.n}"}], "c": 1.5}, {"a": [3, {"b": "x3"}], "c": 1.5}),
        ("no reference $x $ {", "no reference $x $ {"),
    ],
)
def test_a_text_that_is_one_reference_takes_the_type_of_its_value(value: Any, resolved: Any) -> None:
    assert resolve(value, LOOKUP) == resolved


def test_the_item_of_a_task_and_what_it_has_by_name() -> None:
    lookup = scope({}, {}, {}, {"name": "eu", "n": 2})
    assert resolve(["${item}", "${item.name}", "${item.n}"], lookup) == [{"name": "eu", "n": 2}, "eu", 2]
    assert resolve("${item}", scope({}, {}, {}, None)) is None
    with pytest.raises(UnknownReference, match=r"unknown reference `item.nme`; did you mean `item.name`\?"):
        resolve("${item.nme}", lookup)
    with pytest.raises(UnknownReference, match=r"unknown reference `item.x`; did you mean `item`\?"):
        resolve("${item.x}", scope({}, {}, {}, "eu"))


def test_in_a_list_of_arguments_a_value_is_always_a_text() -> None:
    assert resolve_text("${params.n}", LOOKUP) == "3"
    assert resolve_text("${params.on}", LOOKUP) == "true"
    assert resolve_text("${tasks.a.b-c.outputs.none}", LOOKUP) == "null"


def test_the_value_of_a_reference_is_not_searched_again() -> None:
    assert resolve("${params.x}-${params.x}", scope({"x": "${params.y}"}, {}, {})) == "${params.y}-${params.y}"


def test_references_finds_every_name_in_nested_data() -> None:
    data = {"a": ["${params.n} ${run.id}", 3], "b": {"c": "$${not.me} ${tasks.x.outputs.y}"}}
    assert list(references(data)) == ["params.n", "run.id", "tasks.x.outputs.y"]


def test_the_last_outputs_divides_a_task_id_with_dots_from_its_output() -> None:
    assert parse_reference("tasks.a.outputs.b.outputs.c") == ("tasks", "a.outputs.b", "c")
    assert parse_reference("tasks.a.b-c.outputs.x-1") == ("tasks", "a.b-c", "x-1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${params.regoin}", "unknown reference `params.regoin`; did you mean `params.region`?"),
        ("${run.fire_dat}", "unknown reference `run.fire_dat`; did you mean `run.fire_date`?"),
        ("${tasks.a.b-c.outputs.row}",
         "unknown reference `tasks.a.b-c.outputs.row`; did you mean `tasks.a.b-c.outputs.rows`?"),
        ("${tasks.a.b-d.outputs.rows}",
         "unknown reference `tasks.a.b-d.outputs.rows`; did you mean `tasks.a.b-c.outputs.rows`?"),
        (
            "x ${HOME}",
            "`${HOME}` is not a reference here: names are dotted (`params.x`, `run.id`, `tasks.x.outputs.y`);"
            " write `$${HOME}` for a literal",
        ),
        ("${item}", "unknown reference `item`"),
        (
            "${parms.x}",
            "`${parms.x}` is not a reference here: write `params.NAME`, `run.NAME`, `tasks.ID.outputs.NAME` or `item`;"
            " `$${` is a literal `${`",
        ),
        (
            "${params.x",
            "`${params.x}` is not a reference here: its `${` is never closed by `}`; write `$${` for a literal `${`",
        ),
    ],
)  # fmt: skip
def test_a_name_that_is_no_reference_is_an_error_that_says_what_would_be_one(text: str, message: str) -> None:
    for resolver in (resolve, resolve_text):
        with pytest.raises((InvalidReference, UnknownReference)) as caught:
            resolver(text, LOOKUP)
        assert str(caught.value) == message


def test_a_nul_in_a_value_is_refused_before_a_process_is_started() -> None:
    lookup: Lookup = scope({"x": "a\0b"}, {}, {})
    for call in (shell, resolve_text):
        with pytest.raises(UnusableValue, match=r"`params\.x` cannot be used: it holds a NUL byte"):
            call("echo ${params.x}", lookup)


@pytest.mark.parametrize("given_params", [{}, {"date": "${run.id}"}])
def test_defaults_may_name_the_run_and_given_params_are_taken_as_they_are(given_params: Mapping[str, Any]) -> None:
    declared = {"date": "${run.fire_date}", "n": 1}
    date = given_params.get("date", "2026-11-23")
    assert resolve_params(declared, given_params, RUN) == {"date": date, "n": 1}


def test_the_errors_survive_pickling() -> None:
    for error in (UnknownReference("a.b", ("a.c",)), InvalidReference("x", "why"), UnusableValue("a.b", "why")):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
