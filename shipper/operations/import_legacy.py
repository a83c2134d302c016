"""Operation import: jobs begin where an older program's SQLite file says that it stood.

The file has the table `persist (scriptname, index_table, index_column, index_value)`, a row a script.
"""

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from shipper.core.errors import ConfigError, ShipperError
from shipper.core.model import MAX_ID, Job
from shipper.core.rows.start import begin_job
from shipper.log import logger
from shipper.operations.context import OperationContext, Plan

_ROWS = "SELECT scriptname, index_table, index_column, index_value FROM persist ORDER BY scriptname"


class Persisted(NamedTuple):
    """Where a script of the older program stood."""

    script: str
    table: str
    column: str
    value: int | None
    """None where it is no id."""


def read(file: str) -> list[Persisted]:
    """Read an older program's file.

    Raises:
        ConfigError: it is none.
    """
    path = Path(file).absolute()
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(_ROWS).fetchall()
    except sqlite3.Error as error:
        raise ConfigError(
            f"import {file}: {error}",
            hint="It is to be an SQLite file with persist (scriptname, index_table, index_column, index_value).",
        ) from error
    return [Persisted(str(row[0]), str(row[1]), str(row[2]), _value(str(row[3]))) for row in rows]


def plan(doing: OperationContext, arguments: Mapping[str, Any]) -> Plan:
    """Say which job would take over which of the `rows`: that of its name, or else the only one of its table.

    `names` says it otherwise, by script.

    Raises:
        ConfigError: a name is of no job, or of one that has begun or reads another table.
    """
    rows = [Persisted(*row) for row in arguments["rows"]]
    names: Mapping[str, str] = arguments["names"]
    jobs, state = doing.pipeline.config.jobs, doing.pipeline.state
    for script in names.keys() - {row.script for row in rows}:
        raise ConfigError(f"import: the file has no script {script!r}", hint=f"It has: {_listed(rows)}.")
    found = []
    for row in rows:
        job = _job_of(row, rows, names, jobs)
        is_new = job is not None and state.progress(job) is None
        found.append({**row._asdict(), "job": job, "is_new": is_new})
    taken = [one for one in found if one["is_new"]]
    for one in taken:
        if one["value"] is None:
            raise ConfigError(f"import: index_value of {one['script']} is not an id", hint="Correct it in the file.")
        if [other["job"] for other in taken].count(one["job"]) > 1:
            raise ConfigError(f"import: more than one row is for job {one['job']}", hint="`--job` says whose it is.")
    if not taken:
        raise ShipperError(
            "import: no row is of a job that has not begun yet",
            hint="A row is of the job of its script's name, or of the only one on its table and id column; "
            "`--job SCRIPT=JOB` says it otherwise.",
        )
    return Plan({"rows": found}, {"rows": [[one["job"], one["value"]] for one in taken]})


def carry_out(doing: OperationContext, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Let jobs begin behind these ids, as `start` would: the slot in which they go on is counted whole.

    Raises:
        ShipperError: one cannot begin there.
    """
    for name, value in arguments["rows"]:
        with doing.locked(name) as worker:
            worker.prepare()
            if doing.pipeline.state.progress(name) is not None:
                raise ShipperError(f"import {name}: it has begun meanwhile")
            horizon = worker.source.observe(worker.job.query)
            progress, position = begin_job(replace(worker.job, start=value), horizon, worker.source, worker.moment.now)
            doing.pipeline.state.begin(worker.job, progress, position)
            worker.moved()
        logger().info("job.started", job=name, start=value, captured=value)
    return {"jobs": dict(arguments["rows"])}


def _job_of(row: Persisted, rows: Sequence[Persisted], names: Mapping[str, str], jobs: Mapping[str, Job]) -> str | None:
    """Return the job that a row is of, None where none is."""
    fits = [name for name, job in jobs.items() if (job.query.table, job.query.id) == (row.table, row.column)]
    if (name := names.get(row.script)) is not None:
        if name not in jobs:
            raise ConfigError(f"import: there is no job {name!r}", hint=f"There are: {', '.join(jobs)}.")
        if name not in fits:
            raise ConfigError(f"import: {row.script} stands at an id of {row.table}.{row.column}, {name} reads another")
        return name
    if row.script in fits:
        return row.script
    is_only = [one.table for one in rows].count(row.table) == 1
    return fits[0] if len(fits) == 1 and is_only else None


def _value(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) <= MAX_ID else None


def _listed(rows: Sequence[Persisted]) -> str:
    return ", ".join(row.script for row in rows) or "none"
