"""What the service tells about itself: the one report that page, metrics, `status` and systemd are made of.

Times are epoch seconds; None is unknown, or not yet.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any, Self

from shipper.core.errors import ConfigError

MINUTES = 60  # of a job's newest totals


class JobState(Enum):
    """How a job does, best first."""

    OK = "ok"
    NEW = "new"
    """It has not begun: no tick has succeeded yet."""
    LATE = "late"
    """Nothing fails, but it is behind: rows wait for longer than its schedule and settling explain."""
    FAILING = "failing"
    """Its last tick, capture or delivery failed; it tries again by itself."""
    OVERDUE = "overdue"
    """What it does now takes longer than the time between its ticks."""
    HELD = "held"
    """It does not run until somebody decides: see its trouble."""
    GONE = "gone"
    """It left the configuration: what it had captured is delivered."""
    STOPPED = "stopped"
    """A bug stopped it: see the log."""


HEALTHY = {JobState.OK, JobState.NEW, JobState.GONE}
NOT_READY = {JobState.HELD, JobState.STOPPED}
"""States that last until an operator acts."""
MOST_NAMED = 5  # jobs in a line


@dataclass(frozen=True, slots=True)
class Failure:
    """What fails, and what to do about it."""

    error: str
    hint: str | None
    since: float
    """When it failed first."""
    failures: int


@dataclass(frozen=True, slots=True)
class JobReport:
    """One job."""

    job: str
    title: str
    schedule: str
    """As people say it: every 30s, or cron */5 * * * * Europe/Berlin."""
    source: str
    table: str
    state: JobState
    watermark: int | None = None
    """Rows up to this id are counted and delivered."""
    captured: int | None = None
    """Rows up to this id are counted."""
    source_max: int | None = None
    """The largest id at the last look."""
    complete_until: int | None = None
    """The source's time up to which all is captured."""
    waiting: int = 0
    """Totals that Carbon has not confirmed yet."""
    unproven: int = 0
    """Those, those that wait for their archive, and those that were confirmed and are sent again until proven."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    late_rows: int = 0
    """Of the job's table; they are counted."""
    delivered_at: float | None = None
    """When its watermark moved last."""
    next_tick: float | None = None
    trouble: Failure | None = None
    totals: tuple[int, ...] = ()
    """Rows counted in each of the last MINUTES minutes, oldest first; empty where nobody knows."""

    @property
    def behind(self) -> int | None:
        """Return how many ids are not delivered yet: at least as many as rows."""
        if self.source_max is None or self.watermark is None:
            return None
        return max(0, self.source_max - self.watermark)


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """One of the ends that shipper talks to: a source, Carbon, or Graphite."""

    name: str
    """source app, carbon, or graphite."""
    address: str
    reached_at: float | None = None
    """When it last answered."""
    trouble: Failure | None = None
    complaint: str = "does not answer"
    """What trouble with it means, in a few words."""
    is_needed: bool = True
    """Whether captures or deliveries wait for it."""


@dataclass(frozen=True, slots=True)
class Report:
    """The whole service."""

    version: str
    host: str
    now: float
    jobs: tuple[JobReport, ...]
    ends: tuple[EndpointReport, ...] = ()
    state_path: str = ""
    state_bytes: int | None = None
    config_file: str = ""
    pid: int | None = None
    """None where it does not run: then only what the state file and the sources tell is known."""
    started_at: float | None = None
    loaded_at: float | None = None
    """When the configuration in force was loaded."""
    evidence: str = ""
    """What shows that Graphite holds what was sent, and what is only believed."""
    stuck: tuple[str, ...] = ()
    """What makes no progress and should: a restart may cure it."""

    @property
    def worst(self) -> JobReport | None:
        """Return the job that is furthest behind, None where none is."""
        return max((job for job in self.jobs if job.behind), key=lambda job: job.behind or 0, default=None)

    def complaints(self) -> list[str]:
        """Return what is unhealthy, in a few words each; nothing for a healthy service.

        Page, `shipper status`, systemd's status line and readiness all judge by this.
        """
        found = [f"no progress: {part}" for part in self.stuck]
        found += [f"{end.name} {end.complaint}" for end in self.ends if end.trouble]
        states: dict[JobState, list[str]] = {}
        for job in self.jobs:
            if job.state not in HEALTHY:
                states.setdefault(job.state, []).append(job.job)
        for state, names in states.items():
            more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
            found.append(f"{state.value}: {', '.join([*names[:MOST_NAMED], *more])}")
        return found

    def summary(self) -> str:
        """Return the service's health in one line, for `systemctl status`."""
        number = sum(job.state is not JobState.GONE for job in self.jobs)
        jobs, complaints = f"{number} {'job' if number == 1 else 'jobs'}", self.complaints()
        lag = [f"{self.worst.job} {self.worst.behind} ids behind"] if self.worst else []
        errors = [f"{end.name}: {end.trouble.error}" for end in self.ends if end.trouble]
        errors = errors or [f"{job.job}: {job.trouble.error}" for job in self.jobs if job.trouble][:1]
        health = f"unhealthy: {'; '.join(complaints)}" if complaints else "healthy"
        return "; ".join([f"{jobs}, {health}", *lag, *errors])

    def checks(self) -> list[tuple[str, str | None]]:
        """Return the conditions of readiness, each with the reason why it is not met.

        These are complaints that do not pass by themselves, and endpoints that have not answered yet.
        """
        found: list[tuple[str, str | None]] = [("alive", ", ".join(self.stuck) or None)]
        for end in (one for one in self.ends if one.is_needed):
            reason = end.trouble.error if end.trouble else None if end.reached_at else "not reached yet"
            found.append((end.name, reason))
        for job in self.jobs:
            reason = job.trouble.error if job.trouble else job.state.value
            found.append((f"job {job.job}", reason if job.state in NOT_READY else None))
        return found

    def only(self, names: Iterable[str]) -> Self:
        """Return the report of some jobs, with the endpoints that they need; of all jobs where there are no names.

        A name is that of a job, or of a job on several sources.

        Raises:
            ConfigError: there is no such job.
        """
        jobs: dict[str, JobReport] = {}
        for name in names:
            found = {job.job: job for job in self.jobs if name in {job.job, job.job.partition("@")[0]}}
            if not found:
                known = ", ".join(job.job for job in self.jobs)
                raise ConfigError(f"choose jobs: no job {name!r}", hint=f"The jobs are: {known}.")
            jobs |= found
        if not jobs:
            return self
        needed = {"carbon", "graphite", *(f"source {job.source}" for job in jobs.values())}
        ends = tuple(end for end in self.ends if end.name in needed)
        return replace(self, jobs=tuple(jobs.values()), ends=ends)

    def document(self) -> dict[str, Any]:
        """Return the report as JSON holds it."""
        document = asdict(self)
        for job, raw in zip(self.jobs, document["jobs"], strict=True):
            age = None if job.complete_until is None else max(0, int(self.now) - job.complete_until)
            raw.update(state=job.state.value, behind=job.behind, complete_until_age=age, rejected=dict(job.rejected))
        return {
            **document,
            "is_running": self.pid is not None,
            "is_ready": self.is_ready,
            "complaints": self.complaints(),
        }

    @property
    def is_ready(self) -> bool:
        """Does it run, reach its ends, and run all its jobs?"""
        return self.pid is not None and all(reason is None for _, reason in self.checks())


def evidence(replays: int, *, reads_all: bool, reads_samples: bool) -> str:
    """Say in one line what is proven to be in Graphite, and what is only believed after so many replays."""
    if reads_all:
        return "every value is proven, by reading it back from Graphite"
    believed = f"believed once it was sent {replays + 1} times"
    if reads_samples:
        return f"samples are proven, by reading them back; all else is {believed}"
    return f"nothing is proven, for want of render_url; all is {believed}"
