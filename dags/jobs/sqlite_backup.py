"""Back up a live SQLite database, and prove the backup: integrity check, restore test, the last N kept."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .files import prune

__all__ = ["BackupDiffers", "DatabaseDamaged", "NoDatabase", "backup", "make_demo", "prune_backups", "try_restore"]

_PAGES_AT_ONCE = 256
_BUSY_S = 30.0


class NoDatabase(Exception):
    """A path without a database: SQLite itself would make an empty one and back that up."""

    def __str__(self) -> str:
        return f"{self.args[0]}: no such database"


class DatabaseDamaged(Exception):
    """A database that its own checks refuse."""

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


class BackupDiffers(Exception):
    """A restored copy that has not the rows the backup had when it was made."""

    def __str__(self) -> str:
        return f"{self.args[0]}: restored {self.args[1]} rows, the backup was made with {self.args[2]}"


def make_demo(database: str = "var/demo/shop.db", new_orders: int = 25) -> dict[str, Any]:
    """Make a small database if there is none, and add some orders, so that there is something to back up.

    The one task to drop when this DAG is pointed at a database of your own.
    """
    path = Path(database)
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path, timeout=_BUSY_S)) as db, db:
        db.execute("PRAGMA journal_mode = WAL").fetchone()
        db.execute(
            "CREATE TABLE IF NOT EXISTS orders"
            " (id INTEGER PRIMARY KEY, at TEXT NOT NULL, item TEXT NOT NULL, cents INTEGER NOT NULL CHECK (cents > 0))"
        )
        at = datetime.now(UTC).isoformat(timespec="seconds")
        last = db.execute("SELECT coalesce(max(id), 0) FROM orders").fetchone()[0]
        db.executemany(
            "INSERT INTO orders (at, item, cents) VALUES (?, ?, ?)",
            [(at, f"item-{n % 7}", 100 + n * 37 % 9000) for n in range(last + 1, last + 1 + new_orders)],
        )
    return {"database": database, "orders": last + new_orders}


def backup(database: str, target: str) -> dict[str, Any]:
    """Copy `database` to `target` while others may use it; `target` appears only once the copy is proved whole.

    Naming the target after the run makes a retry write the same file again instead of a second one.
    Raises NoDatabase and DatabaseDamaged.
    """
    if not Path(database).is_file():
        raise NoDatabase(database)
    final = Path(target)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.partial")
    partial.unlink(missing_ok=True)
    with (
        closing(sqlite3.connect(f"{Path(database).resolve().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as source,
        closing(sqlite3.connect(partial)) as copy,
    ):
        # In pieces, so that writers get their turn between them.
        source.backup(copy, pages=_PAGES_AT_ONCE, sleep=0.01)
        # The copy inherits WAL; one plain file without -wal and -shm beside it is what one wants to carry away.
        copy.execute("PRAGMA journal_mode = DELETE").fetchone()
        rows = _checked_rows(copy, database)
    _flush(partial)
    partial.replace(final)
    size = final.stat().st_size
    print(f"{final}: {size:,} bytes, {rows:,} rows")
    return {"file": str(final), "bytes": size, "rows": rows, "sha256": _sha256(final)}


def try_restore(file: str, rows: int | str, scratch: str = "var/backups/.restore-test.db") -> dict[str, Any]:
    """Restore `file` into a new database, check that, and compare the rows. Raises DatabaseDamaged, BackupDiffers."""
    restored = Path(scratch)
    restored.parent.mkdir(parents=True, exist_ok=True)
    restored.unlink(missing_ok=True)
    try:
        with (
            closing(sqlite3.connect(f"{Path(file).resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(restored)) as copy,
        ):
            source.backup(copy)
            found = _checked_rows(copy, file)
    finally:
        restored.unlink(missing_ok=True)
    if found != int(rows):
        raise BackupDiffers(file, found, int(rows))
    print(f"{file}: restored and checked, {found:,} rows")
    return {"restored_rows": found}


def prune_backups(directory: str = "var/backups", pattern: str = "*.db", keep: int | str = 24) -> dict[str, Any]:
    """Keep the newest `keep` backups."""
    removed = prune(directory, pattern, int(keep))
    print(f"{directory}: removed {len(removed)}")
    return {"removed": len(removed)}


def _checked_rows(db: sqlite3.Connection, name: str) -> int:
    """Return the number of rows of all tables, once SQLite finds no fault in the file or its references."""
    try:
        verdict = [row[0] for row in db.execute("PRAGMA integrity_check(5)")]
        orphans = db.execute("PRAGMA foreign_key_check").fetchall()
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        rows = sum(_count(db, table) for table in tables)
    except sqlite3.DatabaseError as error:
        raise DatabaseDamaged(name, str(error)) from error
    if verdict != ["ok"]:
        raise DatabaseDamaged(name, "; ".join(verdict))
    if orphans:
        raise DatabaseDamaged(name, f"{len(orphans)} rows refer to rows that are not there")
    return rows


def _count(db: sqlite3.Connection, table: str) -> int:
    quoted = '"' + table.replace('"', '""') + '"'
    return int(db.execute(f"SELECT count(*) FROM {quoted}").fetchone()[0])


def _flush(path: Path) -> None:
    """On disk before the name is: after a power cut there is the old backup or the new one, never an empty one."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()
