"""Operation import: jobs continue after the ids that an older program has counted.

Its SQLite file has the table `persist (scriptname, index_table, index_column, index_value)`, one row per script.

Strategy: only the content of the file is read, up to a limit: SQLite would make files beside it, and follow links.
"""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from shipper.config.files import UnreadableError, read_bytes
from shipper.core.errors import ConfigError, ShipperError
from shipper.core.model import MAX_ID, Job
from shipper.core.rows.start import begin_job
from shipper.log.logger import logger
from shipper.operations.context import OperationContext, Plan

_WAL, _MODES = b"\2\2", slice(18, 20)  # of SQLite's header: who reads and writes the file needs its -wal
_HEADER_BYTES = 100
_CHARACTERS = 100_000  # of a value
_IS_TABLE = "SELECT 1 FROM sqlite_schema WHERE name = 'persist' AND type = 'table'"  # a view may have no end
_ROWS = "SELECT scriptname, index_table, index_column, index_value FROM persist ORDER BY scriptname"

_CHOOSE = (
    "Choose the job with `--job SCRIPT=JOB`; by default it is the one with the script's name, or the only one on its "
    "table and id column."
)
_STARTED = "Leave them; or move such a job with `shipper admin seek`, or recount its rows with `shipper backfill`."


class Persisted(NamedTuple):
    """Last id that a script of the older program has counted."""

    script: str
    table: str
    column: str
    value: int | None
    """None for a value that is not an id."""


def read(file: str) -> list[Persisted]:
    """Read the older program's file.

    Raises:
        ConfigError: it is not such a file.
    """
    if any(Path(f"{file}{suffix}").exists() for suffix in ("-wal", "-journal")):
        hint = f"End the older program. If {file}-wal or {file}-journal still exists then, run: sqlite3 {file} .tables"
        raise ConfigError(f"import {file}: a program uses it, or has not closed it", hint=hint)
    try:
        content = bytearray(read_bytes(file))
        if len(content) < _HEADER_BYTES:
            raise _unusable(file, "file is not a database")
        if content[_MODES] == _WAL:
            content[_MODES] = b"\1\1"
        with closing(sqlite3.connect(":memory:")) as connection:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _CHARACTERS)
            connection.deserialize(bytes(content))
            is_table = connection.execute(_IS_TABLE).fetchone()
            rows = connection.execute(_ROWS).fetchall() if is_table else None
    except (sqlite3.Error, UnreadableError, UnicodeDecodeError) as error:
        raise _unusable(file, error) from error
    if rows is None:
        raise _unusable(file, "there is no table persist")
    return [Persisted(str(row[0]), str(row[1]), str(row[2]), _value(str(row[3]))) for row in rows]


def plan(context: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Plan which job takes over which of the `rows`: the job of the script's name, else the only one on its table.

    `names` overrides this by script.

    Raises:
        ConfigError: a name is no job, or the job has started or reads another table.
    """
    rows = [Persisted(*row) for row in arguments["rows"]]
    names: Mapping[str, str] = arguments["names"]
    jobs, state = context.pipeline.config.jobs, context.pipeline.state
    for script in names.keys() - {row.script for row in rows}:
        scripts = ", ".join(row.script for row in rows) or "none"
        raise ConfigError(f"import: no script {script!r} in the file", hint=f"The scripts are: {scripts}.")
    choices = []
    for row in rows:
        job = _job_of(row, rows, names, jobs)
        is_new = job is not None and state.progress(job) is None
        choices.append({**row._asdict(), "job": job, "is_new": is_new})
    taken = [row for row in choices if row["is_new"]]
    for choice in taken:
        if choice["value"] is None:
            raise ConfigError(f"import: index_value of {choice['script']} is not an id", hint="Correct it in the file.")
        if [other["job"] for other in taken].count(choice["job"]) > 1:
            raise ConfigError(
                f"import: several rows for job {choice['job']}", hint="Choose one with `--job SCRIPT=JOB`."
            )
    if not taken:
        started = ", ".join(row["job"] for row in choices if row["job"])
        reason = f"these jobs have started already: {started}" if started else "no job fits"
        raise ShipperError(f"import: nothing to import: {reason}", hint=_STARTED if started else _CHOOSE)
    return Plan({"rows": choices}, {"rows": [[row["job"], row["value"]] for row in taken]})


def run(context: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Start jobs after these ids, as `start` does: each counts its first slot completely.

    Raises:
        ShipperError: a job cannot start there.
    """
    for name, value in arguments["rows"]:
        with context.locked(name) as worker:
            worker.prepare()
            if context.pipeline.state.progress(name) is not None:
                raise ShipperError(f"import {name}: the job has started meanwhile", hint="Run the command again.")
            horizon = worker.source.observe(worker.job.query)
            begins = begin_job(replace(worker.job, start=value), horizon, worker.source, worker.moment.now)
            context.pipeline.state.begin(worker.job, *begins)
            worker.moved()
        logger().info("job.started", job=name, start=value, captured=value)
    return {"jobs": dict(arguments["rows"])}


def _job_of(row: Persisted, rows: Sequence[Persisted], names: Mapping[str, str], jobs: Mapping[str, Job]) -> str | None:
    """Return the job that takes a row over, None if none does."""
    by_id = {name: job.query for name, job in jobs.items() if not job.query.is_along}
    fits = [name for name, query in by_id.items() if (query.table, query.id) == (row.table, row.column)]
    if (name := names.get(row.script)) is not None:
        if name not in jobs:
            raise ConfigError(f"import: no job {name!r}", hint=f"The jobs are: {', '.join(jobs)}.")
        if name not in fits:
            raise ConfigError(
                f"import: {row.script} counted {row.table}.{row.column}, but job {name} reads another table or column",
                hint="Choose a job on that table: --job SCRIPT=JOB.",
            )
        return name
    if row.script in fits:
        return row.script
    is_only = [other.table for other in rows].count(row.table) == 1
    return fits[0] if len(fits) == 1 and is_only else None


def _unusable(file: str, reason: object) -> ConfigError:
    hint = reason.remedy if isinstance(reason, UnreadableError) else None
    hint = hint or "Give an SQLite file with the table persist (scriptname, index_table, index_column, index_value)."
    return ConfigError(f"import {file}: {reason}", hint=hint)


def _value(text: str) -> int | None:
    return int(text) if re.fullmatch("[0-9]{1,20}", text) and int(text) <= MAX_ID else None
