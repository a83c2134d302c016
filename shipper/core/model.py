"""The nouns; a value that exists is valid.

What a job counts and under which names, as digests: has the configuration changed its meaning?
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple

from shipper.core.measures import COUNT, Kind, Measure, Value

MAX_ID = 2**64 - 1  # BIGINT UNSIGNED

Scalar = str | int | float | bool
Group = tuple[str | None, ...]
"""One combination of values of the `by` columns, in their order; None is NULL."""


class RejectReason(StrEnum):
    """Why rows cannot be shown in Graphite; they are counted under it."""

    NO_TIME = "no_time"
    TOO_OLD = "too_old"
    TOO_LATE = "too_late"
    FUTURE = "future"
    NEVER_COMPLETED = "never_completed"
    REFUSED = "refused"
    NO_ID = "no_id"


class Rejection(NamedTuple):
    """Why rows cannot be shown, and the bucket that they would be in, where it may be counted again one day."""

    reason: RejectReason
    bucket: int | None = None


class Key(NamedTuple):
    """What a total is the total of: one slot of one path, in the archive with that step."""

    path: str
    slot: int
    step: int


class Datapoint(NamedTuple):
    """What is sent to Graphite: the value of one slot of one path."""

    path: str
    value: Value
    slot: int


class RejectedValue(NamedTuple):
    """Values that Carbon could not hold, left out of a measure; an operator is told of the first."""

    column: str
    """A column of the table or of a statement's result; a path, where the sum of good values was too large."""
    rows: int
    value: str | None = None
    """The first one, as a log shows it; None when it is not known."""
    id: int | None = None
    """The row that holds it; None where it is what a group comes to."""
    group: Group | None = None


class Row(NamedTuple):
    """What a window holds of one group in one bucket; bucket is None without a time."""

    bucket: int | None
    group: Group
    rows: int
    values: tuple[Value | None, ...]
    """Of each measure, in the order of the query; None where the database knows none, or Carbon could not hold it."""
    rejected_values: tuple[RejectedValue, ...] = ()


class Condition(NamedTuple):
    """What a column must hold: any of the values, none of them, more than the one, ..."""

    column: str
    operator: Literal["in", "not", "like", "ge", "gt", "le", "lt", "null"]
    values: tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The ids above after, up to and including upto."""

    after: int
    upto: int

    def __post_init__(self) -> None:
        if not 0 <= self.after < self.upto <= MAX_ID:
            raise ValueError(f"not a window of ids: {self}")

    def __str__(self) -> str:
        return f"({self.after}, {self.upto}]"

    def __contains__(self, identity: int) -> bool:
        return self.after < identity <= self.upto


Ids = tuple[int, ...]
"""Some ids, in order."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of time, half-open: start <= time < end, epoch seconds."""

    start: int
    end: int

    def __contains__(self, moment: int) -> bool:
        return self.start <= moment < self.end


class Fingerprint(NamedTuple):
    """By which rows, on which server, a table is known again."""

    server: str | None
    """None where the database does not tell."""
    rows: tuple[tuple[int, int | None], ...]
    """The newest up to captured, the newest first: id and time, epoch seconds; None where that may change."""
    went_back: bool = False
    """Was it found to be another table, or an older one?"""


ALWAYS = Span(-(2**62), 2**62)


class Now(NamedTuple):
    """What time it is, epoch seconds, and whether the clocks agree on it."""

    now: int
    is_trusted: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """The largest id of a table (0 when it is empty) and the source's time, as one answer told them."""

    id: int
    time: int
    clock: float
    """Our monotonic clock when the answer had arrived, seconds."""
    makes_old: bool = True
    """Whether time that passes until a look makes gaps older: not while a replica falls behind."""

    def __post_init__(self) -> None:
        if not 0 <= self.id <= MAX_ID:
            raise ValueError(f"not an id: {self.id}")


@dataclass(frozen=True, slots=True)
class Archive:
    """One of Whisper's archives: a slot every step seconds, kept for duration seconds."""

    step: int
    duration: int

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.duration or self.duration % self.step:
            raise ValueError(f"not an archive: {self}")


@dataclass(frozen=True, slots=True)
class Query:
    """What to count: rows of a table by time bucket and group, under conditions."""

    table: str
    """A table's name, or `schema.table`."""
    id: str
    time: str | None
    """The column of the event time; of a statement of one's own the result's column."""
    bucket: int
    where: tuple[Condition, ...] = ()
    where_sql: str | None = None
    by: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = (COUNT,)
    sql: str | None = None
    """A statement of one's own instead of the conditions; it has :after and :upto."""
    time_zone: str = "UTC"
    """Whose clock a column without a zone was written by: a name of the tz database."""

    @property
    def is_whole(self) -> bool:
        """Does it count all rows of the table?"""
        return not self.where and self.where_sql is None and self.sql is None

    @property
    def bare(self) -> "Query":
        """Return the query of all rows of the table, by time only."""
        return replace(self, by=(), where=(), where_sql=None, measures=(COUNT,), sql=None)

    @property
    def ids_only(self) -> "Query":
        """Return the query of nothing but the table's ids."""
        return replace(self, by=(), where=(), where_sql=None, measures=(), sql=None, time=None)


@dataclass(frozen=True, slots=True)
class Job:
    """One configured query on one source."""

    name: str
    source: str
    query: Query
    every: int | None
    """Seconds; None where cron says when."""
    start: int | Literal["now", "beginning"]
    chunk: int
    template: str
    """The metric path with `{column}` and `{measure}` in it, prefix and tags included."""
    archives: tuple[Archive, ...]
    """What Carbon keeps of its series, finest first."""
    null_as: str = "none"
    empty_as: str = "empty"
    cron: str | None = None
    cron_zone: str = "UTC"
    zeros: int | None = None
    """For how long after a group was seen its empty buckets are 0, seconds; None is never."""
    groups: tuple[Group, ...] = ()
    """Groups that count as seen always."""
    lookback: int | None = None
    """How long after their time rows may still be completed, seconds; None where rows appear complete."""
    max_age: int = 86400
    """How long a row that is not complete is waited for, seconds."""
    max_groups: int = 10_000
    title: str = ""
    keep: int = 172_800
    """How long totals are kept after their last change, seconds."""
    late: int = 21_600
    """How long after its id was given out a row may appear and is counted all the same, seconds."""

    def __hash__(self) -> int:
        return hash(self.name)  # what is known of a job is looked up often: by all its fields that would take long

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """How the values of each measure are put together."""
        return tuple(measure.kind for measure in self.query.measures)


class Progress(NamedTuple):
    """What a job goes on from."""

    captured: int
    complete_until: int
    """The source's time up to which everything is captured, epoch seconds; 0 before there was one."""
    zero_filled_until: int
    """Buckets that end by then have their zeros."""
    not_before: int
    """The first bucket of a job without a time column."""
    recount_from: int | None
    """Slots from here on are to be counted again before anything else."""
    low: int
    """Of rows that may be completed later: everything up to this id is."""
    definition_digest: str
    path_digest: str
    since: int = 0
    """Slots from here on hold all their rows, by the job's present definition; 0 where all do."""
    begins: int = 0
    """Rows for slots before it are not the job's: they are too late; 0 where all are."""
    bucket: int = 0
    """How long the buckets are that its slots begin with, seconds: those of another definition may be longer.

    At most, and until they have been counted again.
    """


class Offsets(NamedTuple):
    """How far a job has come, and on what."""

    source: str
    table: str
    id: str
    watermark: int
    captured: int
    complete_until: str | None
    updated: str


class Pending(NamedTuple):
    """What the courier finds waiting when it begins a round."""

    upto: int
    """The newest revision; the round is about the changed totals up to it."""
    captured: Mapping[str, int]
    """Of each job whose watermark is behind: captured as it stands."""
    waiting: list["Waiting"]
    """Newest slot first."""
    deferred: frozenset[str] = frozenset()
    """Jobs with totals that wait until their archive may receive them."""


class Waiting(NamedTuple):
    """How many changed totals a job has in one slot."""

    job: str
    slot: int
    step: int
    totals: int


@dataclass(slots=True)
class Replay:
    """Revisions (after, upto] that were confirmed, and when they are sent again."""

    after: int
    upto: int
    stage: int
    """How many replays lie behind it; INVALIDATED: none, and it is sent again at once."""
    confirmed: float
    due: float
    repeats: int = 0
    """How often it is sent each minute before its replays count: Carbon may not have made its series yet."""
    reads: bool = False
    """Is it to be read back, instead of sent?"""


INVALIDATED = -1


class Changed(NamedTuple):
    """A total that is not proven yet."""

    series: int
    job: str
    path: str
    value: Value
    is_made: bool
    """Whether a total of this series was proven before, so that Carbon has made its file."""


class SeriesData(NamedTuple):
    """What Graphite holds of a series: a value for each step from start on, None where it holds nothing."""

    start: int
    step: int
    values: Sequence[float | None]

    def items(self) -> Iterator[tuple[int, float]]:
        """Yield the slots that hold something, with their values."""
        for number, value in enumerate(self.values):
            if value is not None:
                yield self.start + number * self.step, value


class JobStanding(NamedTuple):
    """How far a job has come, for people."""

    offsets: Offsets
    unproven: int
    rejected: Mapping[str, int]
    late_rows: int = 0
    """How many rows came below captured, and were added."""
    delivered_at: int | None = None
    """When the watermark moved last by a delivery, epoch seconds; None where that is long ago or never was."""
    waiting: int = 0
    """How many of the unproven totals Carbon has not confirmed, as far as the state knows."""


_IDENTITY = frozenset({"name", "source", "table", "id"})  # compared by themselves
_SCHEDULE = frozenset({"every", "cron", "cron_zone", "start", "chunk"})
NO_MEANING = _IDENTITY | _SCHEDULE | {"title", "archives", "zeros", "groups", "max_age", "max_groups", "keep", "late"}
"""Fields of Job and Query that do not change what its totals mean."""
SAME_PATHS = frozenset(("bucket", "where", "where_sql", "measures", "lookback"))
"""Fields that change what a total means, but neither the path that a row adds to nor the row's time."""
_MOST_JOBS = 10_000  # whose digests are remembered


@lru_cache(_MOST_JOBS)
def definition_digest(job: Job) -> str:
    """Return a digest of all fields that decide what a total means."""
    return _digest(job, NO_MEANING)


@lru_cache(_MOST_JOBS)
def path_digest(job: Job) -> str:
    """Return a digest of all fields that decide which path a row adds to, and at which time."""
    return _digest(job, NO_MEANING | SAME_PATHS)


def _digest(job: Job, left_out: frozenset[str]) -> str:
    values = {field.name: getattr(part, field.name) for part in (job, job.query) for field in fields(part)}
    if job.query.sql is not None:
        del values["measures"]  # unknown before the database has explained the statement
    meaning = [(name, value) for name, value in values.items() if name not in {"query", *left_out}]
    # repr: plain strings, numbers and tuples, the same in every process
    return sha256(repr(meaning).encode()).hexdigest()
