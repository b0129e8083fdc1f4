"""The functions behind the example DAGs, on real files and databases in a directory of their own."""

from __future__ import annotations

import gzip
import json
import os
import sqlite3
import subprocess
import time
from contextlib import closing
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dags.jobs import files, machine, ops_report, page, regions, run_logs, runs_report, sqlite_backup

DAY_S = 86_400
REGION_TOTALS = Path(__file__).parents[1] / "dags" / "jobs" / "region_totals.sh"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tasks run in the project directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


class _Page(HTMLParser):
    """Collects what a page would fetch, and the tags left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]
        if tag not in ("meta", "br", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _write_old(path: str, age_days: float, text: str = "line\n" * 2000) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    then = time.time() - age_days * DAY_S
    os.utime(file, (then, then))
    return file


def _end(run_id: str, at: str, status: str = "success", schedule_id: str = "nightly") -> dict[str, object]:
    return {
        "event": "run_finished",
        "timestamp": at,
        "run_id": run_id,
        "schedule_id": schedule_id,
        "status": status,
        "duration_s": 1.5,
    }


# files


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(project: Path) -> None:
    files.write_text("out/a.txt", "first")
    files.write_text("out/a.txt", "second")
    assert [(path.name, path.read_text()) for path in (project / "out").iterdir()] == [("a.txt", "second")]


def test_prune_keeps_the_newest_and_refuses_to_keep_none() -> None:
    for age in range(5):
        _write_old(f"backups/{age}.db", age)
    assert sorted(files.prune("backups", "*.db", keep=2)) == ["2.db", "3.db", "4.db"]
    assert sorted(path.name for path in Path("backups").iterdir()) == ["0.db", "1.db"]
    with pytest.raises(ValueError, match="at least 1"):
        files.prune("backups", "*.db", keep=0)


# page


def test_a_page_escapes_every_text_and_fetches_nothing() -> None:
    bad = "<script>alert('x')</script>"
    parts = [page.section(bad, page.table([bad, "#n"], [[bad, 1]], "none")), page.cards(page.card(bad, bad, bad))]
    text = page.page(bad, bad, [*parts, page.badge(bad, "bad")], bad)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 11
    parsed = _Page(text)
    assert parsed.fetched == []
    assert parsed.open == []


def test_an_empty_table_says_so() -> None:
    assert "Nothing here." in page.table(["A"], [], "Nothing here.")


def test_a_sparkline_stays_inside_its_picture() -> None:
    assert page.sparkline([1.0]) == ""
    assert 'points="0.00,30.00 50.00,2.00 100.00,2.00"' in page.sparkline([0.0, 100.0, 250.0])


# machine


def test_collect_appends_and_keeps_the_last_figures_only() -> None:
    for _ in range(3):
        outputs = machine.collect(keep=2)
    past = machine.read_history(outputs["history"])
    assert len(past) == 2
    assert past[-1]["cpu_percent"] == outputs["cpu_percent"]
    assert past[-1]["disks"][0]["total_mib"] > 0
    assert past[0]["timestamp"] <= past[1]["timestamp"]


def test_a_torn_line_in_the_history_is_left_out() -> None:
    files.write_text("figures.jsonl", '{"a": 1}\n{"a": \n')
    assert machine.read_history("figures.jsonl") == [{"a": 1}]


def test_check_disk_fails_and_names_the_figures_when_too_little_is_free() -> None:
    assert machine.check_disk(min_free_mib=0)["free_mib"] > 0
    with pytest.raises(machine.DiskNearlyFull, match=r"MiB free, the DAG asks for at least 999,999,999 MiB"):
        machine.check_disk(min_free_mib="999999999")


# run_logs


def test_old_logs_are_compressed_older_ones_removed_and_young_ones_kept() -> None:
    young = _write_old("logs/runs/a/t.1.log", 1)
    old = _write_old("logs/runs/b/t.1.log", 8, "text\n" * 4000)
    older = _write_old("logs/runs/c/t.1.log", 31)
    modified = old.stat().st_mtime
    outputs = run_logs.tidy("logs/runs/d/1", "d")
    assert young.exists()
    assert not older.exists()
    assert not old.exists()
    packed = Path("logs/runs/b/t.1.log.gz")
    assert gzip.decompress(packed.read_bytes()) == b"text\n" * 4000
    assert packed.stat().st_mtime == pytest.approx(modified, abs=0.01)
    assert (outputs["compressed"], outputs["removed"], outputs["kept"]) == (1, 1, 2)
    assert files.read_json("var/ops/run_logs.json")["run_id"] == "d"


def test_the_current_run_and_a_run_that_still_writes_are_left_alone() -> None:
    current = _write_old("logs/runs/now/1/t.1.log", 99)
    first = _write_old("logs/runs/long/first.1.log", 99)
    _write_old("logs/runs/long/second.1.log", 0)
    assert run_logs.tidy("logs/runs/now/1", "now")["removed"] == 0
    assert current.exists()
    assert first.exists()


def test_a_link_in_the_run_logs_is_not_followed(project: Path) -> None:
    outside = _write_old("precious/data.log", 99)
    Path("logs/runs/a").mkdir(parents=True)
    Path("logs/runs/a/link.log").symlink_to(outside.resolve())
    Path("logs/runs/b").symlink_to(project / "precious")
    run_logs.tidy("logs/runs/now/1", "now")
    assert outside.exists()
    assert Path("logs/runs/a/link.log").is_symlink()


def test_a_root_that_holds_the_project_is_refused(project: Path) -> None:
    with pytest.raises(run_logs.UnsafeRoot, match="holds the project itself"):
        run_logs.tidy(str(project.parent / "now" / "1"), "now")
    with pytest.raises(run_logs.UnsafeRoot, match="not lie in a directory named now"):
        run_logs.tidy("logs/runs/other/1", "now")


def test_less_than_a_day_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        run_logs.tidy("logs/runs/now/1", "now", delete_after_days=0)


# ops_report


def test_the_operations_report_is_one_whole_page_with_the_figures() -> None:
    machine.collect()
    run_logs.tidy("logs/runs/r1/1", "r1")
    outputs = ops_report.write("r1")
    text = Path(outputs["report"]).read_text(encoding="utf-8")
    parsed = _Page(text)
    assert parsed.fetched == []
    assert parsed.open == []
    assert "run r1" in text
    assert "Compressed" in text
    assert Path("var/reports/weekly_ops/latest.html").read_text(encoding="utf-8") == text


def test_a_note_of_an_earlier_run_is_not_taken_for_this_one() -> None:
    machine.collect()
    run_logs.tidy("logs/runs/r1/1", "r1")
    assert "not tidied" in Path(ops_report.write("r2")["report"]).read_text(encoding="utf-8")


def test_old_reports_go_and_latest_stays() -> None:
    machine.collect()
    for number in range(4):
        ops_report.write(f"r{number}", keep=2)
    assert sorted(path.name for path in Path("var/reports/weekly_ops").iterdir()) == [
        "latest.html",
        "r2.html",
        "r3.html",
    ]


def test_a_full_disk_is_a_warning() -> None:
    figures = {"disks": [{"mount": "/data", "percent": 93.0}], "memory_percent": 10, "load": [0, 0, 9.0], "cpus": 2}
    assert ops_report.warnings(figures) == ["/data is 93 % full", "15-minute load 9.0 on 2 CPUs"]


def test_a_report_without_figures_says_what_to_run_first() -> None:
    with pytest.raises(ops_report.NoFigures, match="run the task `collect` first"):
        ops_report.write("r1")


# runs_report


def test_only_the_last_end_of_each_run_of_the_day_counts() -> None:
    events = [
        _end("a", "2026-11-22T23:59:59Z"),
        _end("b", "2026-11-23T00:00:00Z", "failed"),
        _end("b", "2026-11-23T00:01:00Z"),
        {"event": "run_started", "timestamp": "2026-11-23T00:01:01Z", "run_id": "b", "status": "started"},
        _end("c", "2026-11-24T00:00:00Z"),
    ]
    found = runs_report.runs_of_day(events, date(2026, 11, 23))
    assert [(run["run_id"], run["status"]) for run in found] == [("b", "success")]


def test_the_day_is_counted_from_the_fire_date() -> None:
    origin = date(2026, 3, 1)
    assert runs_report.wanted_day("yesterday", origin) == date(2026, 2, 28)
    assert runs_report.wanted_day("today", origin) == origin
    assert runs_report.wanted_day("2025-01-02", origin) == date(2025, 1, 2)
    with pytest.raises(ValueError, match="tomorrow"):
        runs_report.wanted_day("tomorrow", origin)


def test_the_morning_report_is_read_from_a_state_log_and_written_as_html_and_text() -> None:
    ends = [
        _end("a", "2026-11-22T10:00:00Z"),
        _end("b<i>", "2026-11-22T11:00:00Z", "timeout"),
        _end("c", "2026-11-23T01:00:00Z"),
    ]
    Path("state.jsonl").write_text("".join(json.dumps(end) + "\n" for end in ends), encoding="utf-8")
    gathered = runs_report.gather(fire_date="2026-11-23", path="state.jsonl")
    assert (gathered["day"], gathered["runs"], gathered["failed"]) == ("2026-11-22", 2, 1)
    html = Path(runs_report.write_html(gathered["data"], "r1")["report"]).read_text(encoding="utf-8")
    parsed = _Page(html)
    assert parsed.fetched == []
    assert parsed.open == []
    assert "b&lt;i&gt;" in html
    text = Path(runs_report.write_text_report(gathered["data"])["report"]).read_text(encoding="utf-8")
    assert text.splitlines()[0] == "Runs of 2026-11-22 (UTC): 2"
    assert "nightly: 1 success, 1 timeout" in text
    assert "! 2026-11-22T11:00:00Z b<i> timeout" in text


def test_a_day_with_more_events_than_the_first_look_is_read_whole() -> None:
    count = 10_500
    lines = (json.dumps(_end(f"r{n}", f"2026-11-22T10:{n // 180:02}:00Z")) + "\n" for n in range(count))
    Path("state.jsonl").write_text("".join(lines), encoding="utf-8")
    assert runs_report.gather(day="2026-11-22", path="state.jsonl")["runs"] == count


def test_a_day_without_runs_is_a_report_too() -> None:
    gathered = runs_report.gather(path="missing.jsonl")
    assert gathered["runs"] == 0
    assert "No run finished on that day." in Path(runs_report.write_html(gathered["data"], "r")["report"]).read_text()


# sqlite_backup


def test_a_backup_of_a_database_in_use_has_all_committed_rows() -> None:
    made = sqlite_backup.make_demo("var/demo/shop.db", new_orders=40)
    with closing(sqlite3.connect("var/demo/shop.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO orders (at, item, cents) VALUES ('x', 'uncommitted', 1)")
        done = sqlite_backup.backup("var/demo/shop.db", "var/backups/a.db")
        writer.execute("ROLLBACK")
    assert done["rows"] == made["orders"] == 40
    assert sqlite_backup.try_restore(done["file"], str(done["rows"])) == {"restored_rows": 40}
    assert [path.name for path in Path("var/backups").iterdir()] == ["a.db"]


def test_the_demo_database_grows_from_run_to_run() -> None:
    sqlite_backup.make_demo(new_orders=5)
    assert sqlite_backup.make_demo(new_orders=5)["orders"] == 10


def test_a_missing_database_is_named_and_not_made() -> None:
    with pytest.raises(sqlite_backup.NoDatabase, match=r"none\.db: no such database"):
        sqlite_backup.backup("none.db", "var/backups/a.db")
    assert not Path("none.db").exists()


def test_a_damaged_database_leaves_no_backup() -> None:
    sqlite_backup.make_demo("shop.db", new_orders=500)
    with closing(sqlite3.connect("shop.db")) as db:
        db.execute("PRAGMA journal_mode = DELETE").fetchone()
    data = bytearray(Path("shop.db").read_bytes())
    data[8192:12288] = b"\xff" * 4096
    Path("shop.db").write_bytes(data)
    with pytest.raises(sqlite_backup.DatabaseDamaged, match=r"shop\.db: "):
        sqlite_backup.backup("shop.db", "var/backups/a.db")
    assert not Path("var/backups/a.db").exists()


def test_an_index_that_does_not_fit_its_table_is_damage() -> None:
    with closing(sqlite3.connect("shop.db")) as db, db:
        db.execute("CREATE TABLE a (x, y)")
        db.execute("CREATE INDEX i ON a (x)")
        db.executemany("INSERT INTO a VALUES (?, ?)", [(1, 2), (3, 4)])
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_schema SET sql = 'CREATE INDEX i ON a (y)' WHERE name = 'i'")
    with pytest.raises(sqlite_backup.DatabaseDamaged, match="row 1 missing from index i"):
        sqlite_backup.backup("shop.db", "var/backups/a.db")


def test_a_row_that_refers_to_nothing_is_damage() -> None:
    with closing(sqlite3.connect("shop.db")) as db, db:
        db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)")
        db.execute("CREATE TABLE b (a INTEGER REFERENCES a)")
        db.execute("INSERT INTO b VALUES (7)")
    with pytest.raises(sqlite_backup.DatabaseDamaged, match="1 rows refer to rows that are not there"):
        sqlite_backup.backup("shop.db", "var/backups/a.db")


def test_a_restore_with_other_rows_than_the_backup_had_fails() -> None:
    sqlite_backup.make_demo("shop.db", new_orders=3)
    done = sqlite_backup.backup("shop.db", "var/backups/a.db")
    with pytest.raises(sqlite_backup.BackupDiffers, match="restored 3 rows, the backup was made with 4"):
        sqlite_backup.try_restore(done["file"], 4)
    assert not Path("var/backups/.restore-test.db").exists()


def test_only_the_newest_backups_stay() -> None:
    for age in range(4):
        _write_old(f"var/backups/{age}.db", age)
    assert sqlite_backup.prune_backups(keep="2") == {"removed": 2}
    assert sorted(path.name for path in Path("var/backups").iterdir()) == ["0.db", "1.db"]


# regions


def _region_totals(region: str, orders: str) -> subprocess.CompletedProcess[str]:
    command = ["sh", str(REGION_TOTALS), region, orders, "work"]
    environment = {**os.environ, "TASK_OUTPUT": f"{region}.outputs"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_same_seed_gives_the_same_orders() -> None:
    first = Path(regions.make_orders("a", "seed", "50")["file"]).read_text()
    assert Path(regions.make_orders("b", "seed", 50)["file"]).read_text() == first
    assert Path(regions.make_orders("c", "other", 50)["file"]).read_text() != first
    assert len(first.splitlines()) == 51


def test_the_shell_script_and_the_function_count_alike_and_leave_outputs() -> None:
    orders = regions.make_orders("work", "seed")["file"]
    assert _region_totals("eu", orders).returncode == 0
    by_script = json.loads(Path("work/eu.json").read_text())
    assert regions.summarise(orders, "eu", "other") == by_script
    lines = [f"{name}={by_script[name]}" for name in ("region", "orders", "cents")]
    assert Path("eu.outputs").read_text().splitlines() == lines


def test_a_region_without_orders_ends_with_the_exit_code_that_means_skipped() -> None:
    files.write_text("orders.csv", "region,item,cents\nus,item-1,100\n")
    assert _region_totals("eu", "orders.csv").returncode == 75
    assert not Path("work/eu.json").exists()


def test_join_adds_up_the_regions_that_came_through_and_names_the_others() -> None:
    orders = regions.make_orders("work", "seed")["file"]
    parts = [regions.summarise(orders, region, "work") for region in ("eu", "us")]
    outputs = regions.join("work", "reports/r1.html", "r1")
    assert outputs["regions"] == 2
    assert outputs["cents"] == sum(part["cents"] for part in parts)
    text = Path(outputs["report"]).read_text(encoding="utf-8")
    assert "Without apac." in text
    assert _Page(text).open == []


def test_join_without_any_region_fails() -> None:
    with pytest.raises(regions.NothingToJoin, match="no region left its figures"):
        regions.join("empty", "reports/r1.html", "r1")


def test_the_operations_page_renders_for_a_given_time() -> None:
    machine.collect()
    past = machine.read_history("var/ops/figures.jsonl")
    text = ops_report.render("r1", past, {}, now=datetime(2026, 11, 23, 15, 5, tzinfo=UTC))
    assert "at 2026-11-23 15:05:00 UTC from 1 samples" in text
