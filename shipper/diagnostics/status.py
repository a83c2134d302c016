"""`shipper status` where no service runs, and `shipper history`: a report from the state, the last commits of a job.

A running service reports itself.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from shipper.config.load import Config, load
from shipper.core.errors import ConfigError, ShipperError
from shipper.core.model import JobStatus
from shipper.core.verify.audit import Audit
from shipper.runtime.endpoints import evidence_of, open_carbon, open_readback, open_reader, open_source, readable_state
from shipper.service.vitals import audits_of, complaint_of, gone, job_report
from shipper.state.lock import Holder, holder
from shipper.state.queries import commits, job_statuses, pauses, stored_slots
from shipper.status.leader import Leader, leader_of
from shipper.status.report import EndpointReport, Failure, JobReport, JobState, Report

FOREVER = 2**62
SLOTS_AROUND = 5  # buckets before and after a time


def document(file: str, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the report of a service that does not run as JSON values, of the named jobs, or of all.

    Raises:
        ConfigError: this user may not read the state, or there is no such job.
        StateCorrupt: the state is damaged, foreign or newer.
    """
    try:
        config, unread = load(file), None
    except ConfigError as error:  # also the file itself may be broken
        config, unread = load(file, with_credentials=False), _failure(error)
    return _read(config, holder(str(config.state.path)), unread).only(names).document()


def _read(config: Config, user: Holder | None, unread: Failure | None) -> Report:
    """Return the report of a service that does not run, from its state and its endpoints.

    Credentials that cannot be read are a failure of all sources.
    """
    path, known, state, leader = str(config.state.path), _Known(), None, None
    if config.state.database is None:
        known, state = _known(path, config), _state(path)
    elif unread is None:
        known, state, leader = _remote(config)
    else:
        state = EndpointReport("state", "", failure=unread)
    statuses = known.statuses
    jobs = {
        name: replace(job_report(job, statuses.get(name)), audit=known.audits.get(name))
        for name, job in config.jobs.items()
    }
    for name, since in known.pauses.items():
        if name in jobs:
            jobs[name] = replace(jobs[name], state=JobState.PAUSED, paused_since=since)
    sources = [
        EndpointReport(f"source {name}", "", failure=unread) if unread else _source(config, name, jobs)
        for name in config.sources
    ]
    return Report(
        jobs=(*jobs.values(), *gone(statuses, config.jobs)),
        endpoints=(*sources, _carbon(config), *_graphite(config), state),
        evidence=evidence_of(config),
        state_path=path,
        state_bytes=known.size,
        config_file=config.file,
        pid=user.process if user and user.address else None,
        user_pid=user.process if user and not user.address else None,
        leader=leader,
    )


class _Known(NamedTuple):
    """Data of a state; empty without one."""

    statuses: Mapping[str, JobStatus] = {}
    pauses: Mapping[str, int] = {}
    audits: Mapping[str, Audit] = {}
    size: int | None = None


def _known(path: str, config: Config) -> _Known:
    if not Path(path).exists() or not (statuses := job_statuses(path)):
        return _Known()
    return _Known(statuses, pauses(path), audits_of(path, config), Path(path).stat().st_size)


def _remote(config: Config) -> tuple[_Known, EndpointReport, Leader | None]:
    """Return the data of a state in a database, whether that answers, and who leads there."""
    database = open_reader(config)
    assert database is not None
    endpoint = EndpointReport("state", str(database))
    try:
        leader = leader_of(database.leadership(), database.standing_by(), config.digest)
        with readable_state(config) as path:
            known = _known(path, config)._replace(size=None)
    except ShipperError as error:
        return _Known(), replace(endpoint, failure=_failure(error)), None
    return known, replace(endpoint, reached_at=time.time()), leader


def _source(config: Config, name: str, jobs: dict[str, JobReport]) -> EndpointReport:
    """Read the largest id of each job of a source, and add it to the reports of the jobs."""
    endpoint = EndpointReport(f"source {name}", "")
    try:
        source = open_source(config, name)
    except ConfigError as error:  # its credentials are missing
        return replace(endpoint, failure=_failure(error))
    endpoint = replace(endpoint, address=str(source))
    with closing(source):
        for job in (job for job in config.jobs.values() if job.source == name and jobs[job.name].paused_since is None):
            try:
                query = source.prepared(job.query) if job.query.is_along else job.query
                jobs[job.name] = replace(jobs[job.name], source_max=source.observe(query).id)
            except ShipperError as error:
                if complaint := complaint_of(error):
                    return replace(endpoint, failure=_failure(error), complaint=complaint)
                jobs[job.name] = replace(jobs[job.name], failure=_failure(error), state=JobState.FAILING)
    return replace(endpoint, reached_at=time.time())


def _carbon(config: Config) -> EndpointReport:
    with closing(open_carbon(config)) as carbon:
        report = _asked(EndpointReport("carbon", ""), lambda: carbon.deliver(()))
        return replace(report, address=str(carbon))  # of several, the one that was asked last


def _graphite(config: Config) -> Iterator[EndpointReport]:
    if (readback := open_readback(config)) is not None:
        yield _asked(EndpointReport("graphite", str(readback), is_needed=False), readback.ask)


def _asked(endpoint: EndpointReport, ask: Callable[[], object]) -> EndpointReport:
    """Ask an endpoint for an answer, and return its report with the result."""
    try:
        ask()
    except ShipperError as error:
        return replace(endpoint, failure=_failure(error))
    return replace(endpoint, reached_at=time.time())


def _state(path: str) -> EndpointReport:
    """Return when the state was last written; whether its disk can be written now, only a write would show."""
    times = [os.path.getmtime(file) for file in (path, f"{path}-wal") if Path(file).exists()]  # noqa: PTH204 - shorter
    return EndpointReport("state", path, max(times, default=None), praise="written", is_needed=False)


def _failure(error: ShipperError) -> Failure:
    return Failure(str(error), error.hint, time.time(), 1)


def story(config: Config, name: str, *, limit: int, at: int | None) -> dict[str, Any]:
    """Return a job's last commits, or those around a time with its slots, the newest last, as JSON values.

    Raises:
        ConfigError: there is no such job, or this user may not read the state.
    """
    job, retentions = config.jobs.get(name), config.graphite.retentions
    with readable_state(config) as path:
        names = {**dict.fromkeys(config.jobs), **dict.fromkeys(job_statuses(path))}
        if name not in names:
            raise ConfigError(f"choose a job: no job {name!r}", hint=f"The jobs are: {', '.join(names)}.")
        if at is None:
            last, around = commits(path, name, at=FOREVER, until=limit, beyond=0), []
        else:
            span = SLOTS_AROUND * (job.query.bucket if job else retentions[0].step)
            last = commits(path, name, at=at, until=(limit + 1) // 2, beyond=limit // 2)
            around = stored_slots(path, name, start=at - span, end=at + span, longest=retentions[-1].step)
    return {
        "job": name,
        "is_along": job is not None and job.query.is_along,
        "commits": [commit._asdict() for commit in last],
        "slots": [slot._asdict() for slot in around],
    }
