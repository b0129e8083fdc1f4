"""DAG files: what a good one becomes, and every rule with its message and place."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.dag import Dag, Retries, Task, check_params, load_dag
from workers.dag_order import find_cycles, upstream_test
from workers.errors import Fault, InvalidFile
from workers.units import Duration

GOOD = """\
id: report
description: A report.
params: {region: us, date: "${run.fire_date}", n: 3}
env: {TZ: UTC, REGION: "${params.region}"}
max_parallel_tasks: 2
timeout: 1h
tasks:
  - id: extract.all
    run: ["./jobs/extract", "--region", "${params.region}", "$${HOME}"]
    retries: {max: 3, delay: 2s}
    env: {LEVEL: 1.10, DEBUG: true}
    skip_on_exit_code: 99
  - id: clean
    call: jobs.clean:main
    args: {rows: "${tasks.extract.all.outputs.rows}"}
    needs: extract.all
  - id: cleanup
    run: rm -rf "$RUN_DIR/${params.region}" ${tasks.extract.all.outputs.file}
    needs: [clean]
    trigger_rule: all_done
    cwd: var/work
on_success: [{run: [echo, "${tasks.clean.outputs.n}"]}]
on_failure: [{run: echo a}, {id: page, run: echo b}, {call: "jobs.page:main", args: {run: "${run.id}"}}]
"""


def load(tmp_path: Path, source: str) -> Dag:
    (tmp_path / "dags").mkdir(exist_ok=True)
    (tmp_path / "dags" / "d.yaml").write_text(source)
    return load_dag(Path("dags/d.yaml"), tmp_path)


def faults(tmp_path: Path, source: str) -> list[str]:
    with pytest.raises(InvalidFile) as caught:
        load(tmp_path, source)
    return [str(fault).removeprefix("dags/d.yaml:") for fault in caught.value.faults]


def test_a_good_file_becomes_the_model(tmp_path: Path) -> None:
    dag = load(tmp_path, GOOD)
    extract, clean, cleanup = dag.tasks
    assert (dag.id, dag.max_parallel_tasks, dag.timeout) == ("report", 2, Duration(hours=1))
    assert dag.params == {"region": "us", "date": "${run.fire_date}", "n": 3}
    assert extract == Task(
        "extract.all",
        run=("./jobs/extract", "--region", "${params.region}", "$${HOME}"),
        retries=Retries(max=3, delay=Duration(seconds=2)),
        env={"LEVEL": "1.10", "DEBUG": "true"},
        skip_on_exit_code=(99,),
    )
    assert (clean.call, clean.needs, clean.isolate) == ("jobs.clean:main", ("extract.all",), True)
    assert (cleanup.trigger_rule, cleanup.cwd) == ("all_done", "var/work")
    assert dag.project == str(tmp_path)


def test_a_hook_without_an_id_takes_the_name_of_its_list(tmp_path: Path) -> None:
    dag = load(tmp_path, GOOD)
    assert [hook.id for hook in dag.on_success] == ["on_success"]
    assert [hook.id for hook in dag.on_failure] == ["on_failure-1", "page", "on_failure-3"]


def test_a_file_outside_the_project_is_refused_and_shown_whole(tmp_path: Path) -> None:
    (tmp_path / "d.yaml").write_text(GOOD)
    with pytest.raises(InvalidFile) as caught:
        load_dag(tmp_path / "d.yaml", tmp_path / "project")
    assert str(caught.value) == f"{tmp_path}/d.yaml: lies outside the project {tmp_path}/project"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("", " is empty; a DAG needs `id` and `tasks`"),
        ("tasks: [{id: a, run: x}]", "1:1: dag: `id` is missing"),
        ("id: d", "1:1: dag `d`: `tasks` is missing"),
        ("id: d\ntasks: []", "2:8: dag `d`: `tasks` is empty; a DAG needs at least one task"),
        (
            "id: a/b\ntasks: [{id: a, run: x}]",
            "1:5: dag `a/b`: 'a/b' is not an id; an id begins with a letter or digit and holds at most 128 letters,"
            " digits, `_`, `.` and `-`",
        ),
        ("id: d\nproject: /\ntasks: [{id: a, run: x}]",
         "2:1: dag `d`: unknown key `project`; allowed: cwd, description, env, id,"
         " max_parallel_tasks, on_exit, on_failure, on_success, params, secrets, tasks, timeout"),
        ("id: d\nmax_parallel_tasks: 0\ntasks: [{id: a, run: x}]",
         "2:21: dag `d`: `max_parallel_tasks` must be at least 1"),
        ("id: d\nnotify: x\ntasks: [{id: a, run: x}]", "2:1: dag `d`: `notify` is not available in this version"),
        ("id: d\ntimeout: 0\ntasks: [{id: a, run: x}]",
         "2:10: dag `d`: `timeout` must be longer than 0s; leave it out for none"),
        ("id: d\nparams: {a b: 1}\ntasks: [{id: a, run: x}]",
         "2:10: dag `d`: 'a b' is not a param name; write a letter or `_`, then letters, digits, `_`, `-`"),
        ('id: d\nparams: {a: ["${params.b}"]}\ntasks: [{id: a, run: x}]',
         "2:14: dag `d`: `params`: `params.b` is not known here; only `run.NAME` are"),
        ('id: d\nenv: {A: "${tasks.a.outputs.b}"}\ntasks: [{id: a, run: x}]',
         "2:10: dag `d`: `env`: `tasks.a.outputs.b` is not known here; only `params.NAME` and `run.NAME` are"),
        ('id: d\nenv: {A: "${params.x}"}\ntasks: [{id: a, run: x}]',
         "2:10: dag `d`: `env`: unknown reference `params.x`"),
    ],
)  # fmt: skip
def test_a_rule_of_the_dag_is_told_with_its_place(tmp_path: Path, source: str, fault: str) -> None:
    with pytest.raises(InvalidFile) as caught:
        load(tmp_path, source)
    assert str(caught.value) == f"dags/d.yaml:{fault}"


TASK_RULES = [
    ("{id: b}", "4:5: task `b`: needs one of `run`, `call`, `http`, `wait`, `dag` and `approval`, and has none"),
    ("{id: b, run: null}",
     "4:5: task `b`: needs one of `run`, `call`, `http`, `wait`, `dag` and `approval`, and has none"),
    ("{id: b, run: x, call: 'm:f'}", "4:21: task `b`: has both `run` and `call`; leave one out"),
    ("{id: b, run: x, args: {a: 1}}", "4:21: task `b`: `args` goes with `call` only"),
    ("{id: b, run: x, isolate: true}", "4:21: task `b`: `isolate` goes with `call` only"),
    ("{id: b, call: m.f}", "4:19: task `b`: `call` is 'm.f'; write `module:function`, such as `jobs.clean:main`"),
    ("{id: b, call: 'm-x:f'}", "4:19: task `b`: `call` is 'm-x:f'; write `module:function`, such as `jobs.clean:main`"),
    ("{id: b, run: []}", "4:18: task `b`: `run` names no command"),
    ("{id: b, run: ' '}", "4:18: task `b`: `run` names no command"),
    ('{id: b, run: [a, "x\\0"]}', "4:22: task `b`: `run` holds a NUL, which no process can be given"),
    ("{id: b, run: x, retires: 1}", "4:21: task `b`: unknown key `retires`; did you mean `retries`?"),
    ("{id: b, run: x, trigger_rule: all_don}",
     '4:35: task `b`: `trigger_rule`: "all_don" is not one of its values; did you mean `all_done`?'),
    ("{id: b, run: x, pool: p}", "4:21: task `b`: `pool` is not available in this version"),
    ("{id: b, run: x, needs: [aa]}", "4:29: task `b`: needs unknown task `aa`; did you mean `a`?"),
    ("{id: b, run: x, needs: [b]}", "4:29: task `b`: needs itself"),
    ("{id: a, run: x}", "4:10: task id `a` is given twice; the first is on line 3"),
    ("{id: b, run: x, timeout: 0s}", "4:30: task `b`: `timeout` must be longer than 0s; leave it out for none"),
    ("{id: b, run: x, skip_on_exit_code: [0, 256]}",
     "4:44: task `b`: `skip_on_exit_code` 256 is no exit code; they go from 0 to 255"),
    ("{id: b, run: x, retries: {max: -1}}", "4:36: task `b`: `retries.max` must be from 0 to 1000, got -1"),
    ("{id: b, run: x, retries: {backoff: 0.5}}", "4:40: task `b`: `retries.backoff` must be from 1 to 100, got 0.5"),
    ("{id: b, run: x, retries: {delay: 2h}}", "4:38: task `b`: `retries.delay` (2h) is longer than `max_delay` (1h)"),
    ("{id: b, run: x, env: {A-B: 1}}",
     "4:27: task `b`: 'A-B' is not a name of an environment variable;"
     " write a letter or `_`, then letters, digits and `_`"),
    ("{id: b, run: x, env: {RUN_ID: 1}}", "4:27: task `b`: `RUN_ID` is set for every task and may not be set in `env`"),
    ('{id: b, run: x, env: {A: "\\0"}}', "4:30: task `b`: `env.A` holds a NUL, which no process can be given"),
    ("{id: b, run: x, cwd: a/../../b}",
     "4:26: task `b`: `cwd` leaves the project directory: 'a/../../b'; write an absolute path to mean that"),
    ("{id: b, run: x, cwd: '${run.dir}'}",
     "4:26: task `b`: `cwd` takes no references; use them in `run`, `env`, `args` and `params`"),
    ("{id: b, run: x, cwd: ''}", "4:26: task `b`: `cwd` must name a directory"),
    ("{id: b, run: [x, '${params.regoin}']}",
     "4:22: task `b`: `run`: unknown reference `params.regoin`; did you mean `params.region`?"),
    ("{id: b, run: 'echo ${params.regoin}'}",
     "4:18: task `b`: `run`: unknown reference `params.regoin`; did you mean `params.region`?"),
    ("{id: b, run: 'echo ${HOME} ${run.idd}'}",
     "4:18: task `b`: `run`: unknown reference `run.idd`; did you mean `run.id`?"),
    ("{id: b, run: x, env: {A: '${tasks.a.outputs.x}'}}",
     "4:30: task `b`: `env`: `tasks.a.outputs.x` is not upstream of `b`; add `a` to its `needs`"),
    ("{id: b, call: 'm:f', needs: [a], args: {q: [1, {r: '${tasks.aa.outputs.x}'}]}}",
     "4:56: task `b`: `args`: unknown reference `tasks.aa.outputs.x`; did you mean `tasks.a.outputs.x`?"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "fault"), TASK_RULES)
def test_a_rule_of_a_task_is_told_with_its_place(tmp_path: Path, task: str, fault: str) -> None:
    assert faults(tmp_path, f"id: d\nparams: {{region: eu}}\ntasks: [{{id: a, run: x}},\n    {task}]") == [fault]


@pytest.mark.parametrize(
    ("hook", "fault"),
    [
        ("{run: x, needs: [a]}", "3:23: task `on_failure`: `needs` does not go with a hook"),
        ("{run: x, trigger_rule: always}", "3:23: task `on_failure`: `trigger_rule` does not go with a hook"),
        ("{id: a, run: x}", "3:19: task id `a` is given twice; the first is on line 2"),
        ("{run: [x, '${tasks.b.outputs.y}']}",
         "3:24: task `on_failure`: `run`: unknown reference `tasks.b.outputs.y`; did you mean `tasks.a.outputs.y`?"),
        ("{rum: x}", "3:15: task `on_failure`: unknown key `rum`; did you mean `run`?"),
    ],
)  # fmt: skip
def test_a_rule_of_a_hook_is_told_with_its_place(tmp_path: Path, hook: str, fault: str) -> None:
    assert faults(tmp_path, f"id: d\ntasks: [{{id: a, run: x}}]\non_failure: [{hook}]") == [fault]


def test_a_cycle_is_told_as_a_path_in_the_direction_of_needs(tmp_path: Path) -> None:
    source = "id: d\ntasks:\n" + "".join(
        f"- {{id: {name}, run: x, needs: [{needs}]}}\n"
        for name, needs in {"a": "c", "b": "a", "c": "b, z", "z": "", "p": "q", "q": "p"}.items()
    )
    assert faults(tmp_path, source) == [
        "3:19: task `a`: `needs` goes round in a circle: a -> c -> b -> a",
        "7:19: task `p`: `needs` goes round in a circle: p -> q -> p",
    ]


def test_every_fault_of_a_file_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    source = """\
id: d
max_parallel_tasks: 0
tasks:
  - {id: a, run: x, retires: 1}
  - {id: b, needs: [a, zz]}
  - {id: b, run: x, timeout: soon}
  - {id: e, run: "echo ${params.q}", needs: [b]}
on_exit: [{run: x, needs: [a]}]
"""
    assert faults(tmp_path, source) == [
        "2:21: dag `d`: `max_parallel_tasks` must be at least 1",
        "4:21: task `a`: unknown key `retires`; did you mean `retries`?",
        "5:5: task `b`: needs one of `run`, `call`, `http`, `wait`, `dag` and `approval`, and has none",
        "5:24: task `b`: needs unknown task `zz`; allowed: a, e",
        "6:30: task `b`: `timeout`: 'soon' is not a duration; write a number with ms, s, m, h, d or w (`90s`, `1h30m`),"
        " at most 10 years",
        "7:18: task `e`: `run`: unknown reference `params.q`",
        "8:20: task `on_exit`: `needs` does not go with a hook",
    ]


def test_a_reference_to_a_task_that_could_not_be_read_is_still_judged(tmp_path: Path) -> None:
    bad = "id: d\ntasks:\n- {id: a, run: x, retires: 1}\n- {id: b, run: x, needs: [%s]}\n"
    user = "- {id: e, run: [x, '${tasks.a.outputs.y}'], needs: [b]}"
    unknown_key = "3:19: task `a`: unknown key `retires`; did you mean `retries`?"
    assert faults(tmp_path, bad % "a" + user) == [unknown_key]
    assert faults(tmp_path, bad % "" + user) == [
        unknown_key,
        "5:20: task `e`: `run`: `tasks.a.outputs.y` is not upstream of `e`; add `a` to its `needs`",
    ]


def test_an_output_of_a_task_far_upstream_may_be_named(tmp_path: Path) -> None:
    tasks = [{"id": f"t{n}", "run": ["x"], "needs": [f"t{n - 1}"] if n else []} for n in range(50)]
    tasks[49]["run"] = ["x", "${tasks.t0.outputs.y}"]
    assert len(load(tmp_path, msgspec.json.encode({"id": "d", "tasks": tasks}).decode()).tasks) == 50
    tasks[0]["run"] = ["x", "${tasks.t49.outputs.y}"]
    assert faults(tmp_path, msgspec.json.encode({"id": "d", "tasks": tasks}).decode())[0].endswith(
        "task `t0`: `run`: `tasks.t49.outputs.y` is not upstream of `t0`; add `t49` to its `needs`"
    )


def test_params_given_to_a_dag_must_be_declared(tmp_path: Path) -> None:
    dag = load(tmp_path, GOOD)
    assert check_params(dag, {"region": "eu"}) == []
    assert check_params(dag, {"regoin": "eu", "xyz": 1}) == [
        "dag `report` has no param `regoin`; did you mean `region`?",
        "dag `report` has no param `xyz`; allowed: date, n, region",
    ]
    assert check_params(Dag("d", ()), {"x": 1}) == ["dag `d` has no param `x`; it declares none"]


def test_the_time_that_a_dag_takes_to_be_checked_grows_with_it_and_not_with_its_square(tmp_path: Path) -> None:
    def seconds(count: int) -> float:
        tasks = "".join(
            f"- {{id: t{n}, run: [x, '${{run.id}}', '${{tasks.t0.outputs.y}}'], needs: [t{n - 1}]}}\n"
            for n in range(1, count)
        )
        began = time.process_time()
        load(tmp_path, f"id: d\ntasks:\n- {{id: t0, run: x}}\n{tasks}")
        return time.process_time() - began

    assert min(seconds(2000) for _ in range(3)) < 10 * min(seconds(500) for _ in range(3))


def test_the_needs_of_two_thousand_tasks_that_all_go_in_circles_are_told_soon() -> None:
    needs = {str(n): [str((n + step) % 2000) for step in range(1, 20)] for n in range(2000)}
    began = time.process_time()
    cycles = find_cycles(needs)
    assert time.process_time() - began < 2
    assert 1 <= len(cycles) <= 5
    assert all(
        cycle[0] == cycle[-1] and cycle[n + 1] in needs[cycle[n]] for cycle in cycles for n in range(len(cycle) - 1)
    )


@given(
    edges=st.dictionaries(st.integers(0, 7), st.sets(st.integers(0, 7), max_size=3), max_size=8).map(
        lambda needs: {str(n): sorted(str(each) for each in needs.get(n, ())) for n in range(8)}
    )
)
def test_upstream_is_what_can_be_reached_by_needs(edges: dict[str, list[str]]) -> None:
    def reached(name: str) -> set[str]:
        found: set[str] = set()
        left = list(edges[name])
        while left:
            if (each := left.pop()) not in found:
                found.add(each)
                left += edges[each]
        return found

    is_upstream = upstream_test(edges)
    if any(name in reached(name) for name in edges):
        assert any(name in edges[name] for name in edges) or find_cycles(edges)
        assert is_upstream("0", "1")
    else:
        assert find_cycles(edges) == []
        assert {(a, b) for a in edges for b in edges if is_upstream(a, b)} == {
            (a, b) for b in edges for a in reached(b)
        }


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["a", "b", "${params.x}", "${", "${tasks.a.outputs.b}", "x:y", "1s", "echo '${run.id}", "\0"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["max", "delay", "A", "a b"]), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
TASK = st.dictionaries(st.sampled_from([*Task.__struct_fields__, "foreach", "zzz"]), JSON, max_size=6)
TASKS = st.lists(TASK | st.builds(lambda task: {"id": "a", "run": "x", **task}, TASK) | JSON, max_size=4) | JSON
FILE = st.dictionaries(st.sampled_from([*Dag.__struct_fields__, "notify"]), JSON | TASKS, max_size=8).map(
    lambda data: {"id": "d", **data}
)


@settings(max_examples=300, deadline=None)
@given(data=FILE | st.builds(lambda data, tasks: {**data, "tasks": tasks}, FILE, TASKS))
def test_any_data_is_a_dag_or_an_invalid_file_with_places(tmp_path_factory: Any, data: dict[str, Any]) -> None:
    found: tuple[Fault, ...] = ()
    try:
        dag = load(tmp_path_factory.getbasetemp(), msgspec.json.encode(data).decode())
    except InvalidFile as error:
        dag, found = None, error.faults
    assert bool(found) != bool(dag and dag.tasks)
    assert all(fault.line == 1 and fault.col >= 1 and "\n" not in fault.message for fault in found)
