"""How each job does: asked of the running service, else read from the state beside what the ends tell.

What became of a job lately: commits of its watermark, and the slots around a time.
"""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shipper.config.load import Config
from shipper.core.errors import ConfigError, NotRunning, ShipperError, SourceUnavailable
from shipper.runtime.endpoints import evidence_of, open_carbon, open_readback, open_source
from shipper.service.control import ask
from shipper.service.vitals import gone, job_report
from shipper.state.database import holder
from shipper.state.queries import commits, job_statuses, stored_slots
from shipper.status.report import EndpointReport, Failure, JobReport, JobState, Report

ASK_SECONDS = 30.0
NO_SERIES = "shipper.status"  # what graphite-web is asked for, to see whether it answers


def document(config: Config, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the report of the service as JSON holds it, whether it runs or not; of the named jobs, or of all.

    Raises:
        ConfigError: this user may not read the state, or there is no such job.
        StateCorrupt: it is damaged, foreign or newer.
    """
    held = holder(str(config.state.path))
    if held is not None and held.address is not None:
        with suppress(NotRunning):  # it has ended just now, or is about to start
            answer: dict[str, Any] = ask(held.address, "status", {"jobs": list(names)}, timeout=ASK_SECONDS)
            return answer
    return _read(config, held.process if held else None).only(names).document()


def _read(config: Config, process: int | None) -> Report:
    """Make the report of a service that cannot be asked."""
    path = str(config.state.path)
    standing = job_statuses(path) if Path(path).exists() else {}
    jobs = {name: job_report(job, standing.get(name)) for name, job in config.jobs.items()}
    ends = [_source(config, name, jobs) for name in config.sources]
    return Report(
        version=version("shipper"),
        host=socket.gethostname(),
        now=time.time(),
        jobs=(*jobs.values(), *gone(standing, config.jobs)),
        endpoints=(*ends, _carbon(config), *_graphite(config)),
        evidence=evidence_of(config),
        state_path=path,
        state_bytes=os.path.getsize(path) if standing else None,  # noqa: PTH202 - a number is all that is asked for
        config_file=config.file,
        pid=process,
    )


def _source(config: Config, name: str, jobs: dict[str, JobReport]) -> EndpointReport:
    """Ask a source for the largest id of each of its jobs, and put that into their reports."""
    end = EndpointReport(f"source {name}", "")
    try:
        source = open_source(config, name)
    except ConfigError as error:  # its credentials are not where they should be
        return replace(end, failure=_trouble(error))
    end = replace(end, address=str(source))
    try:
        for job in (one for one in config.jobs.values() if one.source == name):
            try:
                jobs[job.name] = replace(jobs[job.name], source_max=source.observe(job.query).id)
            except SourceUnavailable as error:
                return replace(end, failure=_trouble(error))
            except ShipperError as error:
                jobs[job.name] = replace(jobs[job.name], failure=_trouble(error), state=JobState.FAILING)
    finally:
        source.close()
    return replace(end, reached_at=time.time())


def _carbon(config: Config) -> EndpointReport:
    carbon = open_carbon(config)
    try:
        carbon.deliver(())
    except ShipperError as error:
        return EndpointReport("carbon", str(carbon), failure=_trouble(error))
    finally:
        carbon.close()
    return EndpointReport("carbon", str(carbon), reached_at=time.time())


def _graphite(config: Config) -> Iterator[EndpointReport]:
    readback = open_readback(config)
    if readback is None:
        return
    end = EndpointReport("graphite", str(readback), is_needed=False)
    try:
        readback.read([NO_SERIES], int(time.time()) // 60 * 60)
    except ShipperError as error:
        yield replace(end, failure=_trouble(error))
    else:
        yield replace(end, reached_at=time.time())


def _trouble(error: ShipperError) -> Failure:
    return Failure(str(error), error.hint, time.time(), 1)


FOREVER = 2**62
SLOTS_AROUND = 5  # buckets before and after a time


def story(config: Config, name: str, *, limit: int, at: int | None) -> dict[str, Any]:
    """Return a job's last commits, or those around a time with the slots there, the newest last, as JSON holds them.

    Raises:
        ConfigError: there is no such job, or this user may not read the state.
    """
    path, job, retentions = str(config.state.path), config.jobs.get(name), config.graphite.retentions
    known = {**dict.fromkeys(config.jobs), **dict.fromkeys(job_statuses(path))}
    if name not in known:
        raise ConfigError(f"choose a job: there is no {name!r}", hint=f"There are: {', '.join(known)}.")
    if at is None:
        found, around = commits(path, name, at=FOREVER, until=limit, beyond=0), []
    else:
        span = SLOTS_AROUND * (job.query.bucket if job else retentions[0].step)
        found = commits(path, name, at=at, until=(limit + 1) // 2, beyond=limit // 2)
        around = stored_slots(path, name, start=at - span, end=at + span, longest=retentions[-1].step)
    return {
        "job": name,
        "commits": [one._asdict() for one in found],
        "slots": [one._asdict() for one in around],
    }
