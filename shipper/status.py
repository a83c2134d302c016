"""Shell. How each job does: asked of the running service, else read from the state beside what the sources hold."""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from shipper.config import Config
from shipper.control import ask
from shipper.errors import NotRunning, ShipperError
from shipper.model import Job
from shipper.pipeline import open_source
from shipper.report import Report
from shipper.state.lock import holder
from shipper.state.standing import standings
from shipper.vitals import gone, job_report

UNKNOWN = "?"
ASK_SECONDS = 30.0


class JobStatus(NamedTuple):
    """One job, as people read it; UNKNOWN where the source does not answer, "-" where the job has not begun."""

    job: str
    state: str
    watermark: str
    captured: str
    source_max: str
    behind: str
    """How many ids are not delivered yet: at least as many as rows."""
    complete_until: str
    unproven: str
    unshown: str
    late_rows: str
    """Of the job's table; they are counted."""


def document(config: Config) -> dict[str, Any]:
    """Return the report of the service as JSON holds it, whether it runs or not.

    Raises:
        ConfigError: this user may not read the state.
        StateCorrupt: it is damaged, foreign or newer.
    """
    held = holder(str(config.state.path))
    if held is not None and held.address is not None:
        try:
            answer: dict[str, Any] = ask(held.address, "status", timeout=ASK_SECONDS)
        except NotRunning:
            pass  # it has ended just now, or only just begins
        else:
            return answer
    return _read(config, held.process if held else None).document()


def rows(document: Mapping[str, Any]) -> list[JobStatus]:
    """Return what a table shows of a document."""
    return [_row(job) for job in document["jobs"]]


def troubles(document: Mapping[str, Any]) -> list[str]:
    """Return what fails, a line each, with its remedy."""
    found = [(job["job"], job["trouble"]) for job in document["jobs"]]
    found += [(end["name"], end["trouble"]) for end in document["ends"]]
    told = {trouble["error"]: (name, trouble) for name, trouble in reversed(found) if trouble}
    return [
        f"{name}: {error} ({trouble['failures']} times since {_time(int(trouble['since']))}). {trouble['hint'] or ''}"
        for error, (name, trouble) in told.items()
    ]


def _read(config: Config, process: int | None) -> Report:
    """Make the report of a service that cannot be asked."""
    path = str(config.state.path)
    standing = standings(path) if Path(path).exists() else {}
    jobs = [
        replace(job_report(job, standing.get(name)), source_max=_largest(config, job))
        for name, job in config.jobs.items()
    ]
    return Report(
        version=version("shipper"),
        host=socket.gethostname(),
        now=time.time(),
        jobs=(*jobs, *gone(standing, config.jobs)),
        state_path=path,
        state_bytes=os.path.getsize(path) if standing else None,  # noqa: PTH202 - a number is all that is asked for
        config_file=config.file,
        pid=process,
    )


def _row(job: Mapping[str, Any]) -> JobStatus:
    source_max = UNKNOWN if job["source_max"] is None else str(job["source_max"])
    if job["watermark"] is None:
        return JobStatus(job["job"], job["state"], "-", "-", source_max, "-", "-", "-", "-", "-")
    return JobStatus(
        job["job"],
        job["state"],
        watermark=str(job["watermark"]),
        captured=str(job["captured"]),
        source_max=source_max,
        behind=UNKNOWN if job["behind"] is None else str(job["behind"]),
        complete_until="-" if job["complete_until"] is None else _time(job["complete_until"]),
        unproven=str(job["unproven"]),
        unshown=", ".join(f"{cause} {rows}" for cause, rows in job["unshown"].items()) or "-",
        late_rows=str(job["late_rows"]),
    )


def _time(instant: int) -> str:
    return datetime.fromtimestamp(instant, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _largest(config: Config, job: Job) -> int | None:
    try:
        source = open_source(config, job.source)
        try:
            return source.observe(job.query).id
        finally:
            source.close()
    except ShipperError:
        return None
