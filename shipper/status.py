"""Shell. How far each job has come: the state beside what the source holds now."""

from pathlib import Path
from typing import NamedTuple

from shipper.config import Config
from shipper.errors import ShipperError
from shipper.model import Standing
from shipper.pipeline import open_source
from shipper.state.standing import standings

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
    late_rows: str
    """Of the job's table; they are counted."""


def statuses(config: Config) -> list[JobStatus]:
    """Read the state, if there is one already, and ask the sources.

    Raises:
        ConfigError: this user may not read it.
        StateCorrupt: it is damaged, foreign or newer.
    """
    standing = standings(config.state.path) if Path(config.state.path).exists() else {}
    gone = sorted(standing.keys() - config.jobs.keys())  # they are delivered to the end all the same
    return [
        *(_status(name, standing.get(name), _largest(config, name)) for name in config.jobs),
        *(_status(name, standing[name], None) for name in gone),
    ]


def _status(name: str, standing: Standing | None, largest: int | None) -> JobStatus:
    source_max = UNKNOWN if largest is None else str(largest)
    if standing is None:
        return JobStatus(name, "-", "-", source_max, "-", "-", "-", "-", "-")
    position = standing.position
    return JobStatus(
        name,
        watermark=str(position.watermark),
        captured=str(position.captured),
        source_max=source_max,
        behind=UNKNOWN if largest is None else str(max(0, largest - position.watermark)),
        complete_until=position.complete_until or "-",
        unproven=str(standing.unproven),
        unshown=", ".join(f"{cause} {rows}" for cause, rows in standing.unshown.items()) or "-",
        late_rows=str(standing.late_rows),
    )


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
