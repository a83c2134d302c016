"""Shell. What `shipper check` looks at beyond the file: do the ends answer, and would they do what the jobs ask?"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from shipper.config import Config
from shipper.daemon import open_carbon, open_source
from shipper.errors import ShipperError
from shipper.model import Job, Window


class Finding(NamedTuple):
    """One thing that was looked at; remedy is empty where nothing is wrong."""

    is_good: bool
    text: str
    remedy: str = ""


def findings(config: Config) -> Iterator[Finding]:
    """Look at the sources, with the queries of their jobs, and at Carbon."""
    for name in config.sources:
        yield from _source(config, name)
    yield _carbon(config)


def carbon_rules(config: Config) -> str:
    """Return what carbon must have in its configuration for these metrics, ready to paste."""
    starts = {_literal_start(job) for job in config.jobs.values()}
    if config.graphite.prefix:
        starts = {config.graphite.prefix + "."}
    pattern = "|".join(re.escape(start).replace(r"\-", "-") for start in sorted(starts))
    pattern = f"^{pattern}" if len(starts) == 1 else f"^(?:{pattern})"
    retentions = ",".join(f"{archive.step}s:{archive.duration}s" for archive in config.graphite.retentions)
    return (
        "# storage-schemas.conf, before any other stanza that matches\n"
        f"[shipper]\npattern = {pattern}\nretentions = {retentions}\n\n"
        "# storage-aggregation.conf, likewise: counts are added up, and a single one is enough\n"
        f"[shipper]\npattern = {pattern}\nxFilesFactor = 0\naggregationMethod = sum\n"
    )


def _source(config: Config, name: str) -> Iterator[Finding]:
    try:
        source = open_source(config, name)
        yield Finding(True, f"source {name}: {source}, {source.version()}")
    except ShipperError as error:
        yield Finding(False, f"source {name}: {error}", error.hint or "")
        return
    for job in config.jobs.values():
        if job.source != name:
            continue
        try:
            largest = source.observe(job.query).id
            # the window is the newest row: cheap, and the database must understand every name in the query
            source.read(job.query, Window(max(largest - 1, 0), max(largest, 1)))
        except ShipperError as error:
            yield Finding(False, f"job {job.name}: {error}", error.hint or "")
        else:
            yield Finding(True, f"job {job.name}: {job.query.table} holds ids up to {largest}")
    source.close()


def _carbon(config: Config) -> Finding:
    carbon = open_carbon(config)
    try:
        carbon.deliver(b"")
    except ShipperError as error:
        return Finding(False, f"carbon: {error}", error.hint or "")
    finally:
        carbon.close()
    return Finding(True, f"carbon {carbon}: reads what it is sent")


def _literal_start(job: Job) -> str:
    return job.template.partition("{")[0]
