"""Shell. How far each job has come: the state beside what the source holds now."""

from typing import NamedTuple

from shipper.config import Config
from shipper.daemon import open_source
from shipper.errors import ShipperError
from shipper.state import standings

UNKNOWN = "?"


class JobStatus(NamedTuple):
    """One job, as people read it; UNKNOWN where the source does not answer, "-" where the job has not begun."""

    job: str
    watermark: str
    captured: str
    source_max: str
    behind: str
    """How many ids are not delivered yet: at least as many as rows."""
    complete_until: str
    unproven: str
    unshown: str


def statuses(config: Config) -> list[JobStatus]:
    """Read the state, and ask the sources.

    Raises:
        ConfigError: there is no state yet.
        StateCorrupt: it cannot be read.
    """
    standing = standings(config.state.path)
    rows = []
    for name in config.jobs:
        largest = _largest(config, name)
        source_max = UNKNOWN if largest is None else str(largest)
        if (known := standing.get(name)) is None:
            rows.append(JobStatus(name, "-", "-", source_max, "-", "-", "-", "-"))
            continue
        behind = UNKNOWN if largest is None else str(max(0, largest - known.watermark))
        unshown = ", ".join(f"{cause} {rows}" for cause, rows in known.unshown.items())
        rows.append(
            JobStatus(
                name,
                str(known.watermark),
                str(known.captured),
                source_max,
                behind,
                known.complete_until or "-",
                str(known.unproven),
                unshown or "-",
            )
        )
    return rows


def _largest(config: Config, name: str) -> int | None:
    job = config.jobs[name]
    try:
        source = open_source(config, job.source)
        try:
            return source.observe(job.query).id
        finally:
            source.close()
    except ShipperError:
        return None
