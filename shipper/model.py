"""Core. The nouns; a value that exists is valid."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, NamedTuple

MAX_ID = 2**64 - 1  # BIGINT UNSIGNED
COUNT = "count"  # the measure

Scalar = str | int | float | bool
Group = tuple[str | None, ...]
"""One combination of values of the `by` columns, in their order; None is NULL."""


class Cause(StrEnum):
    """Why rows cannot be shown in Graphite; they are counted under it."""

    NO_TIME = "no_time"
    TOO_OLD = "too_old"
    FUTURE = "future"
    REFUSED = "refused"


class Key(NamedTuple):
    """What a total is the total of: one slot of one path, in the archive with that step."""

    path: str
    slot: int
    step: int


class Row(NamedTuple):
    """What a window holds of one group in one bucket; bucket is None without a time."""

    bucket: int | None
    group: Group
    rows: int


class Condition(NamedTuple):
    """The column holds one of the values."""

    column: str
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


@dataclass(frozen=True, slots=True)
class Observation:
    """The largest id of a table (0 when it is empty) and the source's time, as one answer told them."""

    id: int
    time: int
    clock: float
    """Our monotonic clock when the answer had arrived, seconds."""

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
    bucket: int
    where: tuple[Condition, ...] = ()
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One configured query on one source."""

    name: str
    source: str
    query: Query
    every: int
    start: int | Literal["now", "beginning"]
    chunk: int
    template: str
    """The metric path with `{column}` and `{measure}` in it, the prefix included."""
    null_as: str = "none"
    empty_as: str = "empty"


class Position(NamedTuple):
    """How far a job has come, and on what."""

    source: str
    table: str
    id: str
    watermark: int
    captured: int
    complete_until: str | None
    updated: str


class Note(NamedTuple):
    """What the courier finds waiting when it begins a round."""

    upto: int
    """The newest revision; the round is about the changed totals up to it."""
    captured: Mapping[str, int]
    """Of each job whose watermark is behind: captured as it stands."""
    waiting: list["Waiting"]
    """Newest slot first."""


class Waiting(NamedTuple):
    """How many changed totals a job has in one slot."""

    job: str
    slot: int
    step: int
    totals: int


@dataclass(slots=True)
class Sent:
    """Revisions (after, upto] that were confirmed, and when they are sent again."""

    after: int
    upto: int
    stage: int
    """How many replays lie behind it; DOUBTED: none, and it is sent again at once."""
    confirmed: float
    due: float
    oldest: int
    """Its slots from this one on were sent."""


DOUBTED = -1


class Changed(NamedTuple):
    """A total that is not proven yet."""

    series: int
    job: str
    path: str
    value: int


class Standing(NamedTuple):
    """How far a job has come, for people."""

    position: Position
    unproven: int
    unshown: Mapping[str, int]
