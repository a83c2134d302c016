"""Report of the service's health and work, the one input of page, metrics, `shipper status` and systemd.

Times are epoch seconds; None is unknown, or not yet.
"""

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from importlib import metadata
from typing import Any, NamedTuple, Self

from shipper.core.errors import ConfigError
from shipper.core.verify.audit import Audit, Outcome
from shipper.log.logger import format_utc
from shipper.status.counters import DeliveryCounters, JobCounters
from shipper.status.leader import Leader

MINUTES = 60  # of a job's newest totals


class JobState(Enum):
    """State of a job, best first."""

    OK = "ok"
    NEW = "new"
    """No tick has succeeded yet, since the start or since an operator's reset."""
    PAUSED = "paused"
    """An operator paused the job: `shipper resume` lets it continue."""
    LATE = "late"
    """Nothing fails, but rows wait longer than the schedule explains."""
    FAILING = "failing"
    """The last tick, capture or delivery failed; the job retries by itself."""
    OVERDUE = "overdue"
    """The running tick takes longer than the time between two ticks."""
    HELD = "held"
    """The job waits for an operator's decision; its failure says which."""
    GONE = "gone"
    """The job left the configuration; shipper still delivers the rows that it has captured."""
    STOPPED = "stopped"
    """A bug stopped the job; the log has details."""


HEALTHY = {JobState.OK, JobState.NEW, JobState.PAUSED, JobState.GONE}
_AUDITS = {Outcome.DIFFERENT: "Graphite differs", Outcome.FAILED: "audit failed"}
MOST_NAMED = 5  # jobs in one line


@dataclass(frozen=True, slots=True)
class Failure:
    """A failure that lasts, with its remedy."""

    error: str
    hint: str | None
    since: float
    """Time of the first failure."""
    failures: int


@dataclass(frozen=True, slots=True)
class JobReport:
    """Report of one job."""

    job: str
    title: str
    schedule: str
    """Readable schedule: every 30s, or cron */5 * * * * Europe/Berlin."""
    source: str
    table: str
    state: JobState
    watermark: int | None = None
    """Rows up to this id are counted and confirmed in Graphite."""
    captured: int | None = None
    """Rows up to this id have been read."""
    source_max: int | None = None
    """Largest id of the table at the last tick."""
    is_along: bool = False
    """Whether it reads along a time: these three are then seconds of that column instead of ids."""
    complete_until: int | None = None
    """Source time up to which all rows are counted."""
    waiting: int = 0
    """Pending totals: Carbon has not confirmed them yet."""
    unproven: int = 0
    """Pending and deferred totals, and confirmed ones that are still due for a replay."""
    rejected: Mapping[str, int] = field(default_factory=dict)
    late_rows: int = 0
    """Late rows of the job's table; they are counted."""
    counters: JobCounters | None = None
    """None if it does not run."""
    delivered_at: float | None = None
    """Time of the last delivery that moved the watermark."""
    next_tick: float | None = None
    paused_since: float | None = None
    """When an operator paused it; None if it is not paused."""
    reset_at: float | None = None
    """When an operator reset it; None after its next tick."""
    failure: Failure | None = None
    audit: Audit | None = None
    """Its newest audit; None before the first, and without [audit] cron."""
    totals: tuple[int, ...] = ()
    """Rows counted in each of the last MINUTES minutes, oldest first; empty if unknown."""

    @property
    def behind(self) -> int | None:
        """Ids above the watermark, an upper bound for rows that are not delivered yet; None if unknown."""
        if self.source_max is None or self.watermark is None:
            return None
        return max(0, self.source_max - self.watermark)

    @property
    def audit_failure(self) -> Failure | None:
        """Problem that the newest audit found, for an operator; None for none."""
        return audit_failure(self.job, self.audit) if self.audit else None

    def document(self, now: float) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            **_fields(self),
            "state": self.state.value,
            "behind": self.behind,
            "complete_until_age": None if self.complete_until is None else max(0, int(now) - self.complete_until),
            "counters": {**_fields(self.counters), "rejected": dict(self.counters.rejected)} if self.counters else None,
            "failure": _optional(self.failure),
            "audit": {**_fields(self.audit), "outcome": self.audit.outcome.value} if self.audit else None,
            "audit_failure": _optional(self.audit_failure),
        }


@dataclass(frozen=True, slots=True)
class EndpointReport:
    """Report of one endpoint: a source, Carbon, or Graphite."""

    name: str
    """Name: source app, carbon, graphite, or state (the disk of the state file)."""
    address: str
    reached_at: float | None = None
    """Time of its last answer."""
    failure: Failure | None = None
    complaint: str = "does not answer"
    """Meaning of its failure, in a few words."""
    praise: str = "answers"
    """Meaning of its last answer."""
    is_needed: bool = True
    """Whether captures or deliveries wait for it."""


class Replication(NamedTuple):
    """Numbers of the leader's work with a state in a database."""

    push_seconds: float
    """Duration of the last commit."""
    slots_again: int
    """Slots sent once more since it leads, because a process may have sent their totals after its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Report of the service, made on its machine, now."""

    version: str = field(default_factory=lambda: metadata.version("shipper"))
    host: str = field(default_factory=socket.gethostname)
    now: float = field(default_factory=time.time)
    jobs: tuple[JobReport, ...]
    endpoints: tuple[EndpointReport, ...] = ()
    state_path: str = ""
    state_bytes: int | None = None
    state_free_bytes: int | None = None
    """Space that the disk of the state has left."""
    config_file: str = ""
    pid: int | None = None
    """None if it does not run: then the report comes from the state and the endpoints."""
    user_pid: int | None = None
    """Process that uses the state while no service runs, such as `shipper once`; None if there is none."""
    started_at: float | None = None
    loaded_at: float | None = None
    """Time at which the active configuration was loaded."""
    next_audit: float | None = None
    """Time of the next audit; None without [audit] cron."""
    audit_since: float | None = None
    """Start of the audit that runs now; None if none does."""
    rejected: Failure | None = None
    """Reason why the last reload was rejected; None if it was not."""
    is_config_changed: bool = False
    """Whether the configuration file differs from the active configuration."""
    evidence: str = ""
    """Evidence that Graphite holds the values, in one line."""
    deliveries: DeliveryCounters | None = None
    """None if it does not run."""
    stalled: tuple[str, ...] = ()
    """Components that should make progress, and do not; a restart may fix them."""
    leader: Leader | None = None
    """Who leads; None if that is unknown, or if the state is a file."""
    is_standing_by: bool = False
    """Whether this process waits until it may lead."""
    replication: Replication | None = None
    """None if this process does not lead, or if the state is a file."""

    @property
    def worst(self) -> JobReport | None:
        """Job with the largest backlog; None if no job has one."""
        return max((job for job in self.jobs if job.behind), key=lambda job: job.behind or 0, default=None)

    def complaints(self) -> list[str]:
        """Return each unhealthy component, in a few words; nothing for a healthy service."""
        complaints = [f"no progress: {part}" for part in self.stalled]
        complaints += [f"{one.name} {one.complaint}" for one in self.endpoints if one.failure]
        complaints += ["configuration rejected"] if self.rejected else []
        worst_first = reversed([state for state in JobState if state not in HEALTHY])
        complaints += self._jobs_in(*worst_first)
        audits = {words: self._audited(outcome) for outcome, words in _AUDITS.items()}
        return complaints + [f"{words}: {_few(names)}" for words, names in audits.items() if names]

    def unseen(self) -> list[str]:
        """Return what was not seen to work yet, in a few words: it is neither healthy nor unhealthy."""
        names = [one.name for one in self.endpoints if one.is_needed and not one.failure and one.reached_at is None]
        jobs = [job.job for job in self.jobs if job.state is JobState.NEW]
        noun = "job" if len(jobs) == 1 else "jobs"
        return [*(f"{name} not reached" for name in names), *([f"{noun} {_few(jobs)} not read"] if jobs else [])]

    def remarks(self) -> list[str]:
        """Return what is intended, and yet not as usual, in a few words."""
        changed = self.is_config_changed and not self.rejected
        return [
            *self._jobs_in(JobState.PAUSED),
            *(["configuration changed, not reloaded"] if changed else []),
            *self._differing(),
        ]

    def _differing(self) -> list[str]:
        """Return on which machines the configuration differs, in a few words."""
        leader = self.leader
        if leader is None:
            return []
        if self.is_standing_by:
            is_same = leader.has_same_configuration or leader.host is None
            return [] if is_same else ["configuration differs from the leader's"]
        hosts = [machine.host for machine in leader.standing_by if not machine.has_same_configuration]
        return [f"configuration differs on {_few(hosts)}"] if hosts and leader.is_here else []

    def verdict(self) -> str:
        """Return the service's health in one line.

        It is the only judgement: `shipper status`, its exit code, page, readiness, metrics and systemd's status line
        follow it.
        """
        if complaints := self.complaints():
            return f"unhealthy: {'; '.join(complaints)}"
        if self.is_standing_by:
            return "; ".join(["stands by", self.leadership(), *self.remarks()])
        if unseen := self.unseen():
            return "; ".join([f"health not known yet: {'; '.join(unseen)}", *self.remarks()])
        return "; ".join(["healthy", *self.remarks()])

    def leadership(self) -> str:
        """Return who leads, in a few words."""
        if self.leader is None or self.leader.host is None:
            return "no machine leads"
        return f"{self.leader.host} leads since {format_utc(int(self.leader.since))}"

    @property
    def is_ready(self) -> bool:
        """Whether the service runs and is healthy: nothing is wrong, and everything was seen to work.

        A process that stands by is not ready: another one does the work.
        """
        return self.is_healthy and not self.is_standing_by

    @property
    def is_healthy(self) -> bool:
        """Whether the service runs, nothing is wrong, and everything was seen to work; also while it stands by."""
        return self.pid is not None and not self.complaints() and not self.unseen()

    def summary(self) -> str:
        """Return the service's health and backlog in one line, for `systemctl status`."""
        number = sum(job.state is not JobState.GONE for job in self.jobs)
        jobs = f"{number} {'job' if number == 1 else 'jobs'}"
        worst = self.worst
        lag = [f"{worst.job} {worst.behind} {'id' if worst.behind == 1 else 'ids'} behind"] if worst else []
        errors = [f"{one.name}: {one.failure.error}" for one in self.endpoints if one.failure]
        errors = errors or [f"{job.job}: {job.failure.error}" for job in self.jobs if job.failure][:1]
        verdict = self.verdict() if self.is_standing_by else f"{jobs}, {self.verdict()}"
        return "; ".join([verdict, *lag, *errors])

    def checks(self) -> list[tuple[str, str | None]]:
        """Return the conditions of readiness, each with the reason why it is not met."""
        checks: list[tuple[str, str | None]] = [("alive", ", ".join(self.stalled) or None)]
        if self.is_standing_by:
            checks.append(("leader", f"this machine stands by; {self.leadership()}"))
        for endpoint in self.endpoints:
            is_unseen = endpoint.is_needed and endpoint.reached_at is None
            reason = endpoint.failure.error if endpoint.failure else "not reached yet" if is_unseen else None
            checks.append((endpoint.name, reason))
        checks.append(("configuration", self.rejected.error if self.rejected else None))
        for job in self.jobs:
            is_good = job.state in HEALTHY - {JobState.NEW}
            reason = None if is_good else job.failure.error if job.failure else job.state.value
            paused = " (paused)" if job.state is JobState.PAUSED else ""
            checks.append((f"job {job.job}{paused}", reason))
        audits = {job.job: job.audit_failure for job in self.jobs if job.audit}
        checks += [(f"audit of {name}", failure.error if failure else None) for name, failure in audits.items()]
        return checks

    def _jobs_in(self, *states: JobState) -> list[str]:
        """Return the jobs in some states, in a few words, a text for each state."""
        by_state = {state: [job.job for job in self.jobs if job.state is state] for state in states}
        return [f"{state.value}: {_few(names)}" for state, names in by_state.items() if names]

    def _audited(self, outcome: Outcome) -> list[str]:
        return [job.job for job in self.jobs if job.audit and job.audit.outcome is outcome]

    def only(self, names: Iterable[str]) -> Self:
        """Return the report of some jobs, with the endpoints that they need; of all jobs if there are no names.

        A name is that of a job, or of a job on several sources.

        Raises:
            ConfigError: no job has this name.
        """
        jobs: dict[str, JobReport] = {}
        for name in names:
            named = {job.job: job for job in self.jobs if name in {job.job, job.job.partition("@")[0]}}
            if not named:
                others = ", ".join(job.job for job in self.jobs)
                raise ConfigError(f"choose jobs: no job {name!r}", hint=f"The jobs are: {others}.")
            jobs |= named
        if not jobs:
            return self
        needed = {"carbon", "graphite", "state", "state database", *(f"source {job.source}" for job in jobs.values())}
        endpoints = tuple(one for one in self.endpoints if one.name in needed)
        return replace(self, jobs=tuple(jobs.values()), endpoints=endpoints)

    def document(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return {
            **_fields(self),
            "jobs": [job.document(self.now) for job in self.jobs],
            "endpoints": [{**_fields(one), "failure": _optional(one.failure)} for one in self.endpoints],
            "rejected": _optional(self.rejected),
            "deliveries": _optional(self.deliveries),
            "is_running": self.pid is not None,
            "is_ready": self.is_ready,
            "is_healthy": self.is_healthy,
            "leader": self.leader.document() if self.leader else None,
            "replication": self.replication._asdict() if self.replication else None,
            "verdict": self.verdict(),
            "complaints": self.complaints(),
            "remarks": self.remarks(),
        }


def _fields(one: Any) -> dict[str, Any]:
    """Return the fields of a dataclass, without the copies that asdict makes of all that they hold."""
    return {name: getattr(one, name) for name in one.__dataclass_fields__}


def _optional(one: Any) -> dict[str, Any] | None:
    return None if one is None else _fields(one)


def audit_failure(job: str, audit: Audit) -> Failure | None:
    """Return the problem that an audit of a job found, for an operator; None for none."""
    if audit.outcome not in _AUDITS:
        return None
    error, hint = audit.error or "", audit.hint
    if audit.start is not None and audit.end is not None:
        rows = f"{audit.missing:,} rows missing, {audit.surplus:,} surplus"
        error = f"{audit.different:,} of {audit.compared:,} slots differ in Graphite: {rows}"
        span = f"--from {format_utc(audit.start)} --until {format_utc(audit.end)}"
        hint = f"`shipper reconcile {job} {span}` shows the differences; with --fix it corrects Graphite."
    return Failure(error, hint, audit.at, 1)


def _few(names: Sequence[str]) -> str:
    """Name the first of some jobs, and how many more there are."""
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return ", ".join([*names[:MOST_NAMED], *more])
