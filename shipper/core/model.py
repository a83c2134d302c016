"""The nouns of the core, valid once they exist; and digests that show whether a job's definition has changed."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from functools import lru_cache
from hashlib import sha256
from typing import Literal, NamedTuple

from shipper.core.measures import COUNT, Kind, Measure, Value

MAX_ID = 2**64 - 1  # BIGINT UNSIGNED

Scalar = str | int | float | bool
Group = tuple[str | None, ...]
"""Values of the `by` columns, in their order; None is NULL."""


class RejectReason(StrEnum):
    """Reason why Graphite cannot show rows; they are counted under it."""

    NO_TIME = "no_time"
    TOO_OLD = "too_old"
    TOO_LATE = "too_late"
    FUTURE = "future"
    NEVER_COMPLETED = "never_completed"
    REFUSED = "refused"
    NO_ID = "no_id"
    UNREADABLE = "unreadable"
    NOT_RECOUNTED = "not_recounted"


class TimeForm(StrEnum):
    """How a database stores the times of a job."""

    TIME = "time"
    """As times or dates; on SQLite, whose columns have no types, as any value."""
    NUMBER = "number"
    TEXT = "text"


class Rejection(NamedTuple):
    """Reason of rejected rows, and their bucket if it may be recounted later."""

    reason: RejectReason
    bucket: int | None = None


class Key(NamedTuple):
    """Key of a total: one slot of one path, in the archive with that step."""

    path: str
    slot: int
    step: int


class Datapoint(NamedTuple):
    """Value of one slot of one path, as it is sent to Graphite."""

    path: str
    value: Value
    slot: int


class RejectedValue(NamedTuple):
    """Values that Carbon cannot store, left out of a measure; the log shows the first one."""

    column: str
    """Column of the table or of custom sql; a path, if the sum of good values was too large."""
    rows: int
    value: str | None = None
    """First value, as the log shows it; None if unknown."""
    id: int | None = None
    """Row of the value; None if it is the result of a group."""
    group: Group | None = None


class Row(NamedTuple):
    """Rows of one group in one bucket of a window; bucket is None without a time."""

    bucket: int | None
    group: Group
    rows: int
    values: tuple[Value | None, ...]
    """Value of each measure, in the order of the query; None if there is none, or Carbon cannot store it."""
    rejected_values: tuple[RejectedValue, ...] = ()
    is_unreadable: bool = False
    """Whether the database cannot compute a value of the row, so that nothing else is known about it."""


class Condition(NamedTuple):
    """Condition on a column: any of the values, none of them, more than the one, ..."""

    column: str
    operator: Literal["in", "not", "like", "ge", "gt", "le", "lt", "null"]
    values: tuple[Scalar, ...]

    # true and 1 are equal in Python, but not in PostgreSQL: queries that differ in them must not share a statement
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and repr(self) == repr(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(repr(self))


class Names(NamedTuple):
    """Names to show in place of the values of a column of `by`; values without a name stay."""

    column: str
    given: tuple[tuple[str, str], ...] = ()
    """Values with their names."""
    sql: str | None = None
    """Statement that selects values and names instead."""


@dataclass(frozen=True, slots=True)
class Window:
    """Range of ids: above after, up to and including upto."""

    after: int
    upto: int

    def __post_init__(self) -> None:
        if not 0 <= self.after < self.upto <= MAX_ID:
            raise ValueError(f"not a window of ids: {self}")

    def __str__(self) -> str:
        return f"ids {self.after + 1} to {self.upto}"

    def __contains__(self, identity: int) -> bool:
        return self.after < identity <= self.upto


Ids = tuple[int, ...]
"""Single ids, in order."""


@dataclass(frozen=True, slots=True)
class Span:
    """Range of time, half-open: start <= time < end, in epoch seconds."""

    start: int
    end: int

    def __contains__(self, moment: int) -> bool:
        return self.start <= moment < self.end


def adjoined(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return ranges in order, with those that adjoin or overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        first = joined.pop() if joined and start <= joined[-1][1] else (start, end)
        joined.append((first[0], max(first[1], end)))
    return joined


class Fingerprint(NamedTuple):
    """Identity of a table: its server, and some of its rows."""

    server: str | None
    """Name of the server; None if the database has none."""
    rows: tuple[tuple[int, int | None], ...]
    """Newest rows up to captured, newest first: id and time in epoch seconds; None if the time may change."""
    went_back: bool = False
    """Whether the table was found to be a different or an older one."""


ALWAYS = Span(-(2**62), 2**62)


class Now(NamedTuple):
    """Current time in epoch seconds, and whether the clocks agree on it."""

    now: int
    is_trusted: bool = True


@dataclass(frozen=True, slots=True)
class Observation:
    """Largest id of a table (0 if it is empty) and time of the source, from one answer."""

    id: int
    time: int
    clock: float
    """Our monotonic clock when the answer arrived, in seconds."""
    makes_old: bool = True
    """Whether this look makes gaps older: not while a replica falls behind."""

    def __post_init__(self) -> None:
        if not 0 <= self.id <= MAX_ID:
            raise ValueError(f"not an id: {self.id}")


@dataclass(frozen=True, slots=True)
class Archive:
    """Archive of Whisper: a slot every `step` seconds, kept for `duration` seconds."""

    step: int
    duration: int

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.duration or self.duration % self.step:
            raise ValueError(f"not an archive: {self}")


@dataclass(frozen=True, slots=True)
class Query:
    """Query of a job: rows of a table by time bucket and group, under conditions."""

    table: str
    """Name of the table, or `schema.table`."""
    id: str
    time: str | None
    """Column of the event time; with custom sql a column of its result; with time_sql its name in messages."""
    bucket: int
    where: tuple[Condition, ...] = ()
    where_sql: str | None = None
    by: tuple[str, ...] = ()
    by_sql: tuple[tuple[str, str], ...] = ()
    """Expressions in place of columns of `by`: their names there, and their SQL."""
    names: tuple[Names, ...] = ()
    measures: tuple[Measure, ...] = (COUNT,)
    sql: str | None = None
    """Custom sql instead of the conditions; it contains :after and :upto."""
    time_zone: str = "UTC"
    """Zone of times in a column without a zone: a name of the tz database."""
    time_unit: Literal["s", "ms", "us"] | None = None
    """Unit of a time that is a number since 1970."""
    time_sql: str | None = None
    """Expression of the event time, instead of a column."""
    time_form: TimeForm = TimeForm.TIME
    """How the database stores the times: `prepared` reads it from the database."""
    short: frozenset[str] = frozenset()
    """Columns and expressions whose type allows no long values, if they are labels: `prepared` knows that, too."""

    @property
    def is_along(self) -> bool:
        """Whether it reads along a time: the seconds of that column take the place of ids, and rows share them."""
        return self.time == self.id and self.sql is None and self.time_sql is None

    @property
    def key(self) -> str:
        """Name of what its windows are made of: its ids, or the times of that column."""
        return f"{self.id} (time)" if self.is_along else self.id

    @property
    def is_whole(self) -> bool:
        """Whether it counts all rows of the table."""
        return not self.where and self.where_sql is None and self.sql is None

    @property
    def bare(self) -> "Query":
        """Same query for all rows of the table, by time only."""
        return replace(
            self, by=(), by_sql=(), names=(), where=(), where_sql=None, measures=(COUNT,), sql=None, short=frozenset()
        )

    @property
    def is_divisible(self) -> bool:
        """Whether each measure may be counted in parts of a bucket."""
        return all(measure.kind.is_divisible for measure in self.measures)

    @property
    def ids_only(self) -> "Query":
        """Same query for the ids of the table only."""
        return replace(self.bare, measures=(), time=None, time_unit=None, time_sql=None, time_form=TimeForm.TIME)

    @property
    def ids_by_time(self) -> "Query":
        """Same query for ids and times only; with custom sql, which alone knows the times, for ids only."""
        return self.ids_only if self.sql is not None else replace(self.bare, measures=())

    @property
    def texts(self) -> tuple[str, ...]:
        """Return all SQL of the configuration in it; each may read other tables."""
        texts = (
            self.sql,
            self.where_sql,
            self.time_sql,
            *dict(self.by_sql).values(),
            *(names.sql for names in self.names),
        )
        return tuple(text for text in texts if text is not None)


@dataclass(frozen=True, slots=True)
class Job:
    """Configured query on one source."""

    name: str
    source: str
    query: Query
    every: int | None
    """Interval in seconds; None with cron."""
    start: int | Literal["now", "beginning"]
    chunk: int
    template: str
    """Metric path with `{column}` and `{measure}` in it, prefix and tags included."""
    archives: tuple[Archive, ...]
    """Carbon's archives of its series, finest first."""
    null_as: str = "none"
    empty_as: str = "empty"
    cron: str | None = None
    cron_zone: str = "UTC"
    zeros: int | None = None
    """How long the empty buckets of a group are 0 after its last row, in seconds; None is never."""
    groups: tuple[Group, ...] = ()
    """Groups that are always zero-filled."""
    lookback: int | None = None
    """How long after their time rows may still change, in seconds; None if they never do."""
    max_age: int = 86400
    """How long an incomplete row may wait for its time, in seconds."""
    max_groups: int = 10_000
    title: str = ""
    keep: int = 172_800
    """How long totals are kept after their last change, in seconds."""
    late: int = 21_600
    """How long gaps are asked for after their ids were given out, in seconds."""

    def __hash__(self) -> int:
        return hash(self.name)  # jobs are looked up often: hashing all fields would be slow

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Kind of each measure."""
        return tuple(measure.kind for measure in self.query.measures)


class Progress(NamedTuple):
    """Progress of a job, beside its position."""

    captured: int
    complete_until: int
    """Source time up to which all rows are counted, in epoch seconds; 0 at the start."""
    zero_filled_until: int
    """Buckets that end by then are zero-filled."""
    not_before: int
    """First bucket of a job without a time column."""
    recount_from: int | None
    """Slots from here on must be recounted before anything else."""
    low: int
    """With lookback: rows up to this id change no more."""
    definition_digest: str
    path_digest: str
    time_digest: str
    since: int = 0
    """Slots from here on contain all their rows, by the present definition; 0 if all slots do."""
    begins: int = 0
    """Rows for slots before it are too late; 0 if there is no limit."""
    bucket: int = 0
    """Longest bucket that stored slots were counted with, in seconds; a former definition may have longer ones."""
    multiple: int = 0
    """Least common multiple of all buckets that the job ever had, in seconds: there no former bucket is cut."""


class Offsets(NamedTuple):
    """Committed offset of a job, and the table that it belongs to."""

    source: str
    table: str
    id: str
    watermark: int
    captured: int
    complete_until: str | None
    updated: str


class SeriesData(NamedTuple):
    """Values of a series in Graphite, one for each step from start on; None is no value."""

    start: int
    step: int
    values: Sequence[float | None]

    def items(self) -> Iterator[tuple[int, float]]:
        """Yield the slots that have a value, with it."""
        for number, value in enumerate(self.values):
            if value is not None:
                yield self.start + number * self.step, value


class JobStatus(NamedTuple):
    """State of a job, for reports."""

    offsets: Offsets
    unproven: int
    rejected: Mapping[str, int]
    late_rows: int = 0
    """Number of late rows that were added."""
    delivered_at: int | None = None
    """When a delivery last moved the watermark, in epoch seconds; None if never, or long ago."""
    waiting: int = 0
    """Number of unproven totals that Carbon has not confirmed, as far as the state knows."""


_IDENTITY = frozenset({"name", "source", "table", "id"})  # compared by themselves
_SCHEDULE = frozenset({"every", "cron", "cron_zone", "start", "chunk"})
_LIMITS = frozenset({"max_age", "max_groups", "keep", "late"})
NO_MEANING = _IDENTITY | _SCHEDULE | _LIMITS | {"title", "archives", "zeros", "groups", "time_form", "short"}
"""Fields of Job and Query that do not change what its totals mean."""
SAME_PATHS = frozenset(("bucket", "where", "where_sql", "measures", "lookback"))
"""Fields that change what a total means, but neither the path that a row adds to nor the row's time."""
TIMES = frozenset(("time", "time_unit", "time_sql", "time_zone", "sql"))
"""Fields that decide the time of a row."""
_MOST_JOBS = 10_000  # digests in the cache


@lru_cache(_MOST_JOBS)
def definition_digest(job: Job) -> str:
    """Return a digest of all fields that decide what a total means."""
    return _digest(job, NO_MEANING)


@lru_cache(_MOST_JOBS)
def path_digest(job: Job) -> str:
    """Return a digest of all fields that decide which path a row adds to, and at which time."""
    return _digest(job, NO_MEANING | SAME_PATHS)


@lru_cache(_MOST_JOBS)
def time_digest(job: Job) -> str:
    """Return a digest of all fields that decide the time of a row."""
    return _digest(job, frozenset(field.name for part in (job, job.query) for field in fields(part)) - TIMES)


def _digest(job: Job, left_out: frozenset[str]) -> str:
    values = {field.name: getattr(part, field.name) for part in (job, job.query) for field in fields(part)}
    if job.query.sql is not None:
        del values["measures"]  # unknown before the database has explained the custom sql
    meaning = [(name, value) for name, value in values.items() if name not in {"query", *left_out}]
    # repr: plain strings, numbers and tuples, the same in every process
    return sha256(repr(meaning).encode()).hexdigest()
