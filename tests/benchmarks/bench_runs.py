"""Runs through warm workers: what a run costs from its request to its end on record."""

from __future__ import annotations

from collections.abc import Callable

from . import floors
from .measure import Bench, Row, Sample, Target
from .processes import in_child, in_processes
from .project import Pool, chain, make_project

__all__ = ["chains", "fibonacci", "isolated", "noop", "shell"]

_TRUE = {"run": ["true"]}


def noop(bench: Bench) -> list[Row]:
    """Runs that do nothing: three events each on record, claim before effect, two workers."""
    count = bench.of(2000, 300)
    place = bench.place("noop")
    project = make_project(bench.place("project"), {"noop": [{"id": "t", "call": "jobs:noop", "isolate": False}]})
    with Pool(project, 2) as pool:
        pool.run("noop", 50)
        found = bench.race(
            {
                "ours": lambda: count / pool.run("noop", count),
                "mp.Queue": lambda: 10 * count / in_child(floors.queue_and_append, str(place / "log"), 10 * count, 2),
            }
        )
    # huey 3,640/s with 2 workers beside this floor's 78,040/s; see docs/BENCHMARKS.md on targets taken from peers.
    target = Target("ratio", ">=", 2.5 * 3640 / 78040, "2.5x huey, 12x Celery (peer: later)")
    what = f"no-op run (`call`, `isolate: false`), {count} enqueued at once until all are finished on record, 2 workers"
    return [_row(bench, "noop", what, found["ours"], "mp.Queue and back + 1 append", found["mp.Queue"], target)]


def shell(bench: Bench) -> list[Row]:
    """One-task DAGs of `true`, output captured, two workers."""
    count = bench.of(500, 100)
    project = make_project(bench.place("project"), {"true": [{"id": "t", **_TRUE}]})
    with Pool(project, 2) as pool:
        pool.run("true", 10)
        found = bench.race(
            {
                "ours": lambda: count / pool.run("true", count),
                "posix_spawn": lambda: count / in_child(floors.spawn_each, count, 2),
            }
        )
    what = "one-task DAG of `true`, output captured, 2 workers"
    target = Target("ratio", ">=", 0.5)
    return [_row(bench, "shell", what, found["ours"], "posix_spawn + wait, 2 in flight", found["posix_spawn"], target)]


def isolated(bench: Bench) -> list[Row]:
    """One-task DAGs of a Python callable in a forked child."""
    count = bench.of(250, 60)
    rows = []
    for workers in (1, 2):
        project = make_project(bench.place("project"), {"fork": [{"id": "t", "call": "jobs:noop"}]})
        with Pool(project, workers) as pool:
            pool.run("fork", 10)
            found = bench.race(
                {
                    f"ours, {workers}": _rate(pool, "fork", count),
                    f"os.fork, {workers}": lambda n=workers: _fork_rate(count, n),  # type: ignore[misc]
                }
            )
        ours, floor = found.values()
        what = f"isolated Python task (`call`), {workers} worker{'s' if workers > 1 else ''}"
        against = f"os.fork + wait, {workers} process{'es' if workers > 1 else ''}"
        rows.append(_row(bench, "isolated", what, ours, against, floor, Target("ratio", ">=", 0.6)))
    return rows


def chains(bench: Bench) -> list[Row]:
    """Chains of `true` in one run: what each further task costs."""
    lengths = (bench.of(1000, 200), bench.of(100, 50))
    project = make_project(bench.place("project"), {f"chain{n}": chain(_TRUE, n) for n in lengths})
    targets = (
        Target("ratio", "<=", 1.4),
        Target("value", "<=", 0.94, "0.1x cronstable's 9.4 ms (peer: later)"),
    )
    rows = []
    with Pool(project, 1) as pool:
        for length, target in zip(lengths, targets, strict=True):
            pool.run(f"chain{length}", 1)
            found = bench.race(
                {
                    f"{length} tasks": lambda n=length: 1000 * pool.run(f"chain{n}", 1) / n,  # type: ignore[misc]
                    f"{length} posix_spawn": lambda n=length: 1000 * in_child(floors.spawn_each, n, 1) / n,  # type: ignore[misc]
                }
            )
            ours, floor = (Sample.of("ms", values) for values in found.values())
            what = f"chain of {length:,} `true` in one run, a task"
            rows.append(Row("chain", what, ours, "posix_spawn + wait", floor, target))
    return rows


def fibonacci(bench: Bench) -> list[Row]:
    """Sequential DAGs of isolated Python tasks, light and heavy."""
    cases = (
        (bench.of(40, 20), 10, Target("value", "<=", 0.15)),
        (bench.of(10, 3), bench.of(33, 25), Target("ratio", "<=", 1.03)),
    )
    dags = {f"fib{n}": chain({"call": "jobs:fib", "args": {"n": n}}, count) for count, n, _ in cases}
    project = make_project(bench.place("project"), dags)
    rows = []
    with Pool(project, 1) as pool:
        for count, n, target in cases:
            if n < 20:
                pool.run(f"fib{n}", 1)
            found = bench.race(
                {
                    f"{count} x fib({n})": lambda n=n: pool.run(f"fib{n}", 1),  # type: ignore[misc]
                    f"{count} forks of fib({n})": lambda n=n, count=count: in_child(floors.fork_each, count, n),  # type: ignore[misc]
                }
            )
            ours, floor = (Sample.of("s", values) for values in found.values())
            what = f"{count} x fib({n}), one sequential DAG of isolated tasks"
            rows.append(Row("fib", what, ours, "os.fork each", floor, target))
    return rows


def _rate(pool: Pool, dag: str, count: int) -> Callable[[], float]:
    return lambda: count / pool.run(dag, count)


def _fork_rate(count: int, processes: int) -> float:
    return processes * count / max(in_processes(processes, floors.fork_each, count, 0))


def _row(
    bench: Bench, name: str, what: str, ours: list[float], against: str, floor: list[float], target: Target
) -> Row:
    bench.say("done")
    return Row(name, what, Sample.of("/s", ours), against, Sample.of("/s", floor), target)
