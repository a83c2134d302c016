"""Shell. What `shipper check` looks at beyond the file: do the ends answer, and would they do what the jobs ask?"""

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from shipper.config import Config
from shipper.errors import ShipperError
from shipper.model import Job, Kind, Window
from shipper.pipeline import open_carbon, open_readback, open_source
from shipper.selfnames import COUNTS, GAUGES, NODE
from shipper.source import Source
from shipper.state.standing import standings
from shipper.worker import check_identity


class Finding(NamedTuple):
    """One thing that was looked at; remedy is empty where nothing is wrong."""

    is_good: bool
    text: str
    remedy: str = ""


def findings(config: Config) -> Iterator[Finding]:
    """Look at the file, at the state, at the sources with the queries of their jobs, and at Carbon."""
    yield from _file(config.file)
    yield from _state(config)
    for name in config.sources:
        yield from _source(config, name)
    yield _carbon(config)
    yield from _graphite(config)


def carbon_rules(config: Config) -> str:
    """Return what carbon must have in its configuration for these metrics, ready to paste."""
    if prefix := config.graphite.prefix:
        pattern = f"^{re.escape(prefix)}\\."
    else:
        pattern = "|".join([*(f"^{_path_pattern(job)}$" for job in config.jobs.values()), _own_pattern(config)])
    retentions = ",".join(f"{archive.step}s:{archive.duration}s" for archive in config.graphite.retentions)
    extremes = "".join(_aggregation(config, kind) for kind in (Kind.MAX, Kind.MIN))
    own = _own_pattern(config)
    worst = "|".join(name for name in GAUGES if name != "up")
    return (
        "# storage-schemas.conf, before any other stanza that matches\n"
        f"[shipper]\npattern = {pattern}\nretentions = {retentions}\n\n"
        "# storage-aggregation.conf, likewise: counts are added up, and a single one is enough\n"
        f"[shipper-itself]\npattern = {own}({worst})$\nxFilesFactor = 0\naggregationMethod = max\n\n"
        f"[shipper-itself-up]\npattern = {own}up$\nxFilesFactor = 0\naggregationMethod = min\n\n"
        f"[shipper-itself-counts]\npattern = {own}({'|'.join(COUNTS)})$\nxFilesFactor = 0\naggregationMethod = sum\n\n"
        f"{extremes}[shipper]\npattern = {pattern}\nxFilesFactor = 0\naggregationMethod = sum\n\n"
        "# carbon.conf: the usual 50 drops the first points of new series, without a word\n"
        "[cache]\nMAX_CREATES_PER_MINUTE = inf\n"
    )


def _own_pattern(config: Config) -> str:
    """Write the paths of the service's own metrics as a regular expression, up to the last node."""
    begin = f"{config.graphite.prefix}." if config.graphite.prefix else ""
    return f"^{re.escape(begin + NODE)}\\.[^.]+\\.[^.]+\\."


def _aggregation(config: Config, kind: Kind) -> str:
    """Return the stanza of the measures that are not added up, if there are any."""
    paths = [
        _path_pattern(job, measure.name)
        for job in config.jobs.values()
        for measure in job.query.measures
        if measure.kind is kind
    ]
    if not paths:
        return ""
    pattern = "|".join(f"^{path}$" for path in paths)
    return f"[shipper-{kind}]\npattern = {pattern}\nxFilesFactor = 0\naggregationMethod = {kind}\n\n"


def _file(file: str) -> Iterator[Finding]:
    """Say if root sees a configuration that the service would not."""
    found = Path(file).stat()
    is_for_group = found.st_gid != 0 and found.st_mode & stat.S_IRGRP
    if found.st_uid == os.geteuid() == 0 and not is_for_group and not found.st_mode & stat.S_IROTH:
        remedy = f"The service is another user: chmod 644 {file}. A secret has no place in it."
        yield Finding(is_good=False, text=f"{file}: only root can read it", remedy=remedy)


def _state(config: Config) -> Iterator[Finding]:
    path = Path(config.state.path)
    try:
        exists = path.exists()
    except PermissionError:
        remedy = "Ask as the user that shipper runs as, or as root."
        yield Finding(is_good=False, text=f"state {path}: this user may not look", remedy=remedy)
        return
    if not exists:
        if not path.parent.is_dir():
            remedy = "Make its directory, owned by the user that shipper runs as."
        elif not os.access(path.parent, os.W_OK | os.X_OK):
            remedy = "Its directory is not writable for this user; shipper's user must own it."
        else:
            remedy = ""
        yield Finding(is_good=not remedy, text=f"state {path}: not there yet", remedy=remedy)
        return
    try:
        standing = standings(config.state.path)
        for name in standing.keys() & config.jobs.keys():
            check_identity(config.jobs[name], standing[name].position)
    except ShipperError as error:
        yield _bad(f"state {path}", error)
    else:
        yield Finding(is_good=True, text=f"state {path}: jobs that have begun: {len(standing)}")


def _bad(what: str, error: ShipperError) -> Finding:
    return Finding(is_good=False, text=f"{what}: {error}", remedy=error.hint or "")


def _source(config: Config, name: str) -> Iterator[Finding]:
    try:
        source = open_source(config, name)
        yield Finding(is_good=True, text=f"source {name}: {source}, {source.version()}")
    except ShipperError as error:
        yield _bad(f"source {name}", error)
        return
    for job in config.jobs.values():
        if job.source != name:
            continue
        try:
            query = source.prepared(job.query)
            largest = source.observe(query).id
            # the window is the newest row: cheap, and the database must understand every name in the query
            source.read(query, Window(max(largest - 1, 0), max(largest, 1)))
        except ShipperError as error:
            yield _bad(f"job {job.name}", error)
        else:
            yield Finding(is_good=True, text=f"job {job.name}: {job.query.table} holds ids up to {largest}")
            yield from _late(config, source, job)
    source.close()


def _late(config: Config, source: Source, job: Job) -> Iterator[Finding]:
    """Say what is done about rows of a job's table that commit late."""
    section = config.sources[job.source]
    if job.revisit is not None:
        return
    try:
        lag, reason = source.lag(), source.unguarded(job.query)
        is_replica = reason is None and source.is_read_only()
    except ShipperError as error:
        yield _bad(f"job {job.name}", error)
        return
    if is_replica:
        remedy = "Is it a replica? What is in flight on its primary is not seen here: say `lag_query` in the source."
        yield Finding(is_good=False, text=f"job {job.name}: the server is read-only", remedy=remedy)
        return
    guard = "guard" if reason is None else f"no guard, because {reason}"
    behind = f" after the replica's lag, {lag:.0f} s now" if section.lag_query else ""
    recheck = f"recheck for {section.recheck} s" if section.recheck else "no recheck: rows that commit later are lost"
    text = f"job {job.name}: late rows: settle {section.settle} s{behind}; {guard}; {recheck}"
    yield Finding(is_good=True, text=text)


def _carbon(config: Config) -> Finding:
    carbon = open_carbon(config)
    try:
        carbon.deliver(b"")
    except ShipperError as error:
        return _bad("carbon", error)
    finally:
        carbon.close()
    return Finding(is_good=True, text=f"carbon {carbon}: reads what it is sent")


def _path_pattern(job: Job, measure: str | None = None) -> str:
    """Write a job's template as a regular expression of its paths, of all measures or of one."""
    template = job.template if measure is None else job.template.replace("{measure}", measure)
    literals = re.split(r"\{[^}]*\}", template)
    return "[^.]+".join(re.escape(literal).replace(r"\-", "-") for literal in literals)


def _graphite(config: Config) -> Iterator[Finding]:
    """Ask for a series that nobody has."""
    readback = open_readback(config)
    if readback is None:
        return
    try:
        readback.read(["shipper.check"], int(time.time()) // 60 * 60)
    except ShipperError as error:
        yield _bad("graphite", error)
    else:
        yield Finding(is_good=True, text=f"graphite {readback}: can be read back")
