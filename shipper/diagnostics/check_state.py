"""Checks of the state: its file, and what it knows of a job, compared with the job's table."""

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import NamedTuple

from shipper.config.load import Config
from shipper.core.model import Job, JobStatus, Observation
from shipper.core.repair import reset
from shipper.core.rows.table import Source, fingerprint_of
from shipper.diagnostics.finding import Finding
from shipper.runtime.endpoints import open_reader, readable_state
from shipper.state.access import enter
from shipper.state.lock import holder
from shipper.state.queries import KnownTable, job_statuses, known_tables, series_counts
from shipper.state.remote.session import START_REPLICA, Leadership
from shipper.state.remote.working_copy import check_free, invalid

SOME_BYTES = 65536  # as much as a small delivery writes


class Stored(NamedTuple):
    """Data of the state, by job; empty without a state."""

    statuses: Mapping[str, JobStatus] = {}
    tables: Mapping[str, KnownTable] = {}
    series: Mapping[str, int] = {}


def check_file(path: Path, *, is_copy: bool) -> Iterator[Finding]:
    """Check the state file, or the directory in which it will be created; is_copy if the state is in a database."""
    subject = f"state {path}"
    enter(str(path))
    try:
        exists = path.exists()
    except PermissionError:
        yield Finding(False, subject, "this user cannot read it", "Run the check as root or as the service's user.")
        return
    if not path.parent.is_dir():
        remedy = f"Create {path.parent.resolve()} with mode 700; the service's user must own it."
        yield Finding(False, subject, "its directory does not exist", remedy)
    elif not os.access(path.parent, os.W_OK | os.X_OK, effective_ids=True) or (
        exists and not os.access(path, os.R_OK | os.W_OK, effective_ids=True)
    ):
        remedy = "Run the check as root or as the service's user, who must own file and directory."
        yield Finding(False, subject, "this user cannot write there", remedy)
    elif (reason := _unwritable(path.parent)) is not None:
        yield Finding(False, subject, f"its disk cannot be written: {reason}", "Free disk space, or repair the disk.")
    elif is_copy:
        check_free(str(path))
        yield Finding(True, subject, "its working copy can be written")
    elif not exists:
        yield Finding(True, subject, "does not exist yet; can be created")
    else:
        statuses, process = job_statuses(str(path)), holder(str(path))
        jobs = f"{len(statuses)} {'job' if len(statuses) == 1 else 'jobs'}"
        yield Finding(True, subject, f"{jobs}; in use by process {process.process}" if process else jobs)


def _unwritable(folder: Path) -> str | None:
    """Write a file without a name, and return why that is not possible."""
    try:
        with TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(SOME_BYTES))
            os.fsync(file.fileno())
    except OSError as error:
        return error.strerror
    return None


def stored(config: Config) -> Stored:
    """Return the data of the state, by job.

    Raises:
        ShipperError: it cannot be read.
    """
    with readable_state(config) as path:
        if not Path(path).exists():
            return Stored()
        return Stored(job_statuses(path), known_tables(path), series_counts(path))


def check_database(config: Config) -> Iterator[Finding]:
    """Check the database that keeps the state, and who leads there.

    Raises:
        ShipperError: it cannot be reached, or cannot keep a state.
    """
    database = open_reader(config)
    if database is None:
        return
    probe, subject = database.probe(), f"state {database}"
    if probe.missing is not None:
        yield Finding(False, subject, f"user {probe.user} lacks rights", probe.missing)
    if probe.leadership is not None and probe.leadership.move is not None:
        raise invalid(probe.leadership.move)
    text, remedy = _leader(probe.leadership, config) if probe.missing is None else ("who leads is not known", "")
    yield Finding(True, subject, f"answers in {probe.round_trip_seconds * 1000:.1f} ms; {text}", remedy)
    if not probe.is_replicated:
        text = "no synchronous replica confirms a commit, so no machine can lead; synchronous_standby_names is"
        yield Finding(False, subject, f"{text} {probe.synchronous}", START_REPLICA)
    if not probe.synchronous and (names := [job.name for job in config.jobs.values() if job.query.time is None]):
        text = "synchronous_standby_names is empty: after a fail-over of PostgreSQL, jobs without `time` may count rows"
        remedy = "Set it in PostgreSQL (Patroni: synchronous_mode), unless the server has no replica."
        yield Finding(True, subject, f"{text} twice: {', '.join(names)}", remedy)


def _leader(leadership: Leadership | None, config: Config) -> tuple[str, str]:
    """Return who leads, and what an operator should do about it."""
    if leadership is None:
        return "no machine has led yet", ""
    leader = leadership.leader
    if leader is None:
        return "no machine leads", "Start the service; where it already runs, its log has the reason."
    here = " (this machine)" if leader == socket.gethostname() else ""
    if leadership.configuration == config.digest:
        return f"{leader}{here} leads, with the same configuration", ""
    remedy = "Run `systemctl reload shipper`: the service has not loaded the present files."
    if not here:
        remedy = (
            f"Copy the right configuration to the other machine; then on {leader} `systemctl reload shipper`, here "
            "`systemctl restart shipper`."
        )
    return f"{leader}{here} leads, with a configuration that differs from these files", remedy


def check_identity(job: Job, known: Stored) -> Iterator[Finding]:
    """Check that the configuration still names the table that was counted, whether it can be read or not.

    Raises:
        ConfigError: it names another one.
    """
    if (status := known.statuses.get(job.name)) is not None:
        reset.check_identity(job, status.offsets)
    yield from ()


def check_job(job: Job, known: Stored, source: Source, observation: Observation) -> Iterator[Finding]:
    """Compare a job's table with the rows that were counted; no finding if the job has not started."""
    status, subject = known.statuses.get(job.name), f"job {job.name}"
    if status is None or status.offsets[:3] != (job.source, job.query.table, job.query.key):
        return
    captured = status.offsets.captured
    if not job.query.is_along and (
        reason := _went_back(job, known.tables.get(job.name), captured, source, observation)
    ):
        yield Finding(False, subject, f"it is held, because its table was reset: {reason}", reset.remedy(job))
        return
    series, remedy = known.series.get(job.name, 0), ""
    counted = f"{series} series" if series else "no row counted yet"
    if not series and observation.id > 0:
        remedy = (
            "If the table has new rows that should be counted, correct the conditions of the job: "
            f"`shipper preview {job.name}` shows its query."
        )
    rejected = ", ".join(f"{reason} {rows:,}" for reason, rows in status.rejected.items())
    upto = "" if job.query.is_along else f"read up to id {captured}; "
    yield Finding(True, subject, f"{upto}{counted}; rejected rows: {rejected or 'none'}", remedy)


def _went_back(
    job: Job, known: KnownTable | None, captured: int, source: Source, observation: Observation
) -> str | None:
    """Return why the table went back; None if it has the rows that were counted."""
    if (reason := reset.fallen(observation.id, captured)) or known is None or not known.fingerprint.rows:
        return reason
    present = fingerprint_of(job, source, known.fingerprint.rows[0][0])
    is_other = reset.verdict(job, known.fingerprint, present, known.time_digest, None) == "reset"
    return reset.changed(captured) if is_other else None
