"""Housekeeping of the state file: prune old totals, rename and forget jobs."""

import sqlite3
from collections.abc import Container, Iterator
from contextlib import contextmanager

from shipper.core.model import Job, definition_digest
from shipper.state import positions
from shipper.state.database import StateFile

# Units of time that have ended, and whose slots all changed last before a time, and lack no rows.
_OLD_UNITS = """
    SELECT slot / :unit * :unit AS start FROM slot WHERE job = :job
    GROUP BY start HAVING MAX(changed) < :before AND MAX(lacking) = 0 AND start + :unit <= :before
    ORDER BY start LIMIT 200"""
_UNPROVEN = """
    SELECT 1 FROM total JOIN series ON series.id = total.series
    WHERE slot >= ? AND slot < ? AND job = ? AND changed > 0 LIMIT 1"""
_FORGET_TOTALS = "DELETE FROM total WHERE slot >= ? AND slot < ? AND series IN (SELECT id FROM series WHERE job = ?)"

# Late ids and counts below the floor are needed as long as there is a slot that they are about.
_FORGET_LATE = """
    DELETE FROM late WHERE job = :job AND slot < COALESCE((SELECT MIN(slot) FROM slot WHERE job = :job), slot + 1)"""
_FORGET_SETTLED = """
    DELETE FROM settled WHERE job = :job AND NOT EXISTS (
        SELECT 1 FROM slot
        WHERE slot.job = :job AND (length(slot.after), slot.after) < (length(settled.upto), settled.upto))"""

# Jobs with the same definition on the same table.
_TWIN = """
    SELECT job FROM watermark JOIN job USING (job)
    WHERE definition_digest = ? AND source = ? AND id_table = ? AND id_column = ? ORDER BY job"""
_JOB_TABLES = """
    SELECT tables.name FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS columns
    WHERE tables.type = 'table' AND columns.name = 'job'"""


class Housekeeping:
    """Removal of what the state file no longer needs, and moves of a job's data to another name."""

    def __init__(self, file: StateFile) -> None:
        self._file = file

    def prune(self, job: str, *, unit: int, before: int) -> int:
        """Forget a job's slots that last changed before a time, in complete units of that length, in seconds.

        Totals that are not proven stay. Return how many units were forgotten: at most 200 in one call, since other
        threads wait meanwhile.
        """
        pruned = 0
        with self._file.writing(f"prune job {job}") as connection:
            for (start,) in connection.execute(_OLD_UNITS, {"unit": unit, "job": job, "before": before}).fetchall():
                end = start + unit
                if connection.execute(_UNPROVEN, (start, end, job)).fetchone():
                    continue
                connection.execute(_FORGET_TOTALS, (start, end, job))
                connection.execute("DELETE FROM slot WHERE job = ? AND slot >= ? AND slot < ?", (job, start, end))
                _add_pruned(connection, job, start, end)
                pruned += 1
            positions.gather_rejected(connection, job, unit)
            connection.execute(_FORGET_LATE, {"job": job})
            connection.execute(_FORGET_SETTLED, {"job": job})
        return pruned

    def rename(self, job: Job, configured: Container[str]) -> str | None:
        """Give a new job the data of a job that left the configuration, if both have the same definition.

        Return that job's name, None if there is none.
        """
        identity = (definition_digest(job), job.source, job.query.table, job.query.key)
        with self._moving(f"rename to {job.name}") as connection:
            if connection.execute("SELECT 1 FROM watermark WHERE job = ?", (job.name,)).fetchone():
                return None
            twins = (name for (name,) in connection.execute(_TWIN, identity).fetchall() if name not in configured)
            twin: str | None = next(twins, None)
            if twin is not None:
                self._move(connection, twin, job.name)
        return twin

    def move(self, before: str, after: str) -> None:
        """Give a job's data to another name, and forget what that name had."""
        with self._moving(f"rename job {before} to {after}") as connection:
            self._move(connection, before, after)

    def forget(self, job: str) -> None:
        """Delete all data of a job."""
        with self._moving(f"forget job {job}") as connection:
            self._forget(connection, job)

    @contextmanager
    def _moving(self, step: str) -> Iterator[sqlite3.Connection]:
        """Write other names of jobs, or none; the pauses in memory follow."""
        with self._file.writing(step) as connection:
            yield connection
        self._file.load_pauses()

    def _move(self, connection: sqlite3.Connection, before: str, after: str) -> None:
        """Give a job's data to another name, and forget what that name had; the job is paused if either was."""
        connection.execute("INSERT OR IGNORE INTO pause SELECT ?, since FROM pause WHERE job = ?", (before, after))
        self._forget(connection, after)
        self._change_tables(connection, before, "UPDATE {table} SET job = ? WHERE job = ?", after, before)

    def _forget(self, connection: sqlite3.Connection, job: str) -> None:
        connection.execute("DELETE FROM total WHERE series IN (SELECT id FROM series WHERE job = ?)", (job,))
        self._change_tables(connection, job, "DELETE FROM {table} WHERE job = ?", job)

    def _change_tables(self, connection: sqlite3.Connection, job: str, statement: str, *values: str) -> None:
        """Run a statement on every table with a column `job`, so that no table can be left out."""
        self._file.forget_cached()
        connection.execute("PRAGMA defer_foreign_keys = ON")  # else the order of the tables would matter
        connection.execute("DELETE FROM setting WHERE name = 'backfill ' || ?", (job,))  # how far a backfill has come
        for (table,) in connection.execute(_JOB_TABLES).fetchall():
            connection.execute(statement.format(table=table), values)


def _add_pruned(connection: sqlite3.Connection, job: str, start: int, end: int) -> None:
    """Add a range to the pruned ones, merged with its neighbours."""
    touching = "job = ? AND start <= ? AND end >= ?"
    row = connection.execute(f"SELECT MIN(start), MAX(end) FROM pruned WHERE {touching}", (job, end, start)).fetchone()
    connection.execute(f"DELETE FROM pruned WHERE {touching}", (job, end, start))
    start, end = min(start, row[0] or start), max(end, row[1] or end)
    connection.execute("INSERT INTO pruned (job, start, end) VALUES (?, ?, ?)", (job, start, end))
