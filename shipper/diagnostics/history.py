"""What became of a job lately: commits of its watermark, and the slots around a time."""

from typing import Any

from shipper.config.load import Config
from shipper.core.errors import ConfigError
from shipper.state.history import commits, slots
from shipper.state.queries import standings

FOREVER = 2**62
SLOTS_AROUND = 5  # buckets before and after a time


def story(config: Config, name: str, *, limit: int, at: int | None) -> dict[str, Any]:
    """Return a job's last commits, or those around a time with the slots there, the newest last, as JSON holds them.

    Raises:
        ConfigError: there is no such job, or this user may not read the state.
    """
    path, job, retentions = str(config.state.path), config.jobs.get(name), config.graphite.retentions
    known = {**dict.fromkeys(config.jobs), **dict.fromkeys(standings(path))}
    if name not in known:
        raise ConfigError(f"choose a job: there is no {name!r}", hint=f"There are: {', '.join(known)}.")
    if at is None:
        found, around = commits(path, name, at=FOREVER, until=limit, beyond=0), []
    else:
        span = SLOTS_AROUND * (job.query.bucket if job else retentions[0].step)
        found = commits(path, name, at=at, until=(limit + 1) // 2, beyond=limit // 2)
        around = slots(path, name, start=at - span, end=at + span, longest=retentions[-1].step)
    return {
        "job": name,
        "commits": [one._asdict() for one in found],
        "slots": [one._asdict() for one in around],
    }
