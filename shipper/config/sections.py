"""What a configuration file may hold: its sections and keys, with their defaults.

A value that a model accepts is valid by itself (values.py); what must fit together is checked in related.py.
"""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from shipper.config import values
from shipper.core.measures import Kind
from shipper.core.model import Archive, Scalar

Seconds = Annotated[int, BeforeValidator(values.duration)]
SecondsOrFalse = Annotated[int | None, BeforeValidator(values.duration_or_false)]
Identifier = Annotated[str, AfterValidator(values.identifier)]
Node = Annotated[str, AfterValidator(values.node)]
Path = Annotated[str, AfterValidator(values.path)]
Host = Annotated[str, AfterValidator(values.host)]
Zone = Annotated[str, AfterValidator(values.zone)]
Tags = dict[Annotated[str, AfterValidator(values.tag_name)], Annotated[str, AfterValidator(values.tag)]]
Tests = Annotated[tuple[tuple[str, tuple[Scalar, ...]], ...], BeforeValidator(values.conditions)]


class Section(BaseModel):
    """A table of the file: no unknown keys, no silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StateSection(Section):
    """Where the state lives, and for how long it keeps what is delivered."""

    path: Path = Field(default_factory=lambda: f"{os.environ.get('STATE_DIRECTORY', '/var/lib/shipper')}/shipper.db")
    """The SQLite file, absolute; under systemd $STATE_DIRECTORY/shipper.db."""
    keep: Seconds = Field(172_800, ge=86_400)
    """How long totals are kept after their last change; at least a day."""


class GraphiteSection(Section):
    """Where the metrics go, and what carbon keeps of them."""

    host: Host = "127.0.0.1"
    """Where carbon's line receiver is."""
    port: int = Field(2003, ge=1, le=65535)
    """Its port, plaintext."""
    prefix: Annotated[str, AfterValidator(values.prefix)] | None = None
    """What stands before every name."""
    tags: Tags = {}
    """Tags of every series."""
    retentions: Annotated[tuple[Archive, ...], BeforeValidator(values.retentions)]
    """What carbon keeps of these series, finest first."""
    timeout: Seconds = Field(10, le=3600)
    """For each step of a delivery."""
    batch: int = Field(2500, ge=1, le=10000)  # relays queue 10,000
    """Datapoints a connection; relays queue no more than 10,000."""
    proof: Literal["replay", "readback"] = "replay"
    """What shows that Graphite holds what was sent."""
    replay: list[Seconds] = Field([60, 600, 3600], min_length=1)
    """When all is sent again, after its first confirmation."""
    render_url: Annotated[str, AfterValidator(values.render_url)] | None = None
    """Where graphite-web is, to be read back."""


class StatusSection(Section):
    """Where the service tells how it does, over HTTP."""

    listen: Annotated[str, AfterValidator(values.listen)] | None = None
    """127.0.0.1:PORT, unix:/PATH, or off."""


class LimitsSection(Section):
    """What a mistake in a job must not grow beyond."""

    series: int = Field(10_000, ge=1)
    """Groups of one job; all further ones are counted together as _other."""


class SourceSection(Section):
    """A database to count in."""

    url: Annotated[str, AfterValidator(values.url)] | None = Field(None, repr=False)  # a reference may hold a password
    """DIALECT://HOST/DATABASE, without user and password."""
    kind: Literal["mysql", "mariadb", "postgresql"] = "mysql"
    """Instead of a url: the kind of database."""
    host: Host | None = None
    """Instead of a url: its host."""
    port: int | None = Field(None, ge=1, le=65535)
    """Instead of a url: its port."""
    socket: Path | None = None
    """Instead of a url: its socket; of PostgreSQL the directory."""
    database: str | None = Field(None, min_length=1)
    """Instead of a url: the database."""
    user: str | None = None
    """Who connects, where `credentials` does not say so."""
    password: str | None = Field(None, repr=False)
    """Always a reference."""
    credentials: str | None = None
    """A MySQL option file with user and password: a systemd credential, a file beside this one, or a path."""
    tls: Literal["verify-identity", "verify-ca", "off"] | None = None
    """What is verified of the server; of one that is not local its identity."""
    tls_ca: Path | None = None
    """The authority of its certificate; else those of the system."""
    timeout: Seconds = Field(30, le=3600)
    """What a statement may take."""
    connections: int = Field(4, ge=1, le=100)
    """At most so many statements at once."""
    late: Seconds = 21_600
    """So long after its id was given out a row may appear, and is counted."""
    lag_query: str | None = Field(None, min_length=1)
    """Of a replica: gives how many seconds it is behind, or NULL."""
    max_skew: Seconds = 300
    """How far our clock and the database's may differ."""


class JobSection(Section):
    """What to count, where, how often, under which names."""

    title: str = ""
    """What people call it."""
    source: Annotated[tuple[str, ...], BeforeValidator(values.sources)] = ()
    """A source, or several: a job on each."""
    table: Annotated[str, AfterValidator(values.table)]
    """The table, or SCHEMA.TABLE."""
    id: Identifier
    """Its ever-growing integer key."""
    time: Identifier | None = None
    """The column of each row's own time."""
    time_zone: Zone = "UTC"
    """Whose clock a column without a zone was written by."""
    where: dict[Identifier, Tests] = {}
    """What columns must hold: a value, any of several, or tests."""
    where_sql: Annotated[str, AfterValidator(values.where_sql)] | None = Field(None, min_length=1)
    """A condition in SQL."""
    sql: str | None = Field(None, min_length=1)
    """A statement of one's own, over the ids above :after up to :upto."""
    by: list[Identifier] = []
    """One series for each value of these columns."""
    measure: dict[Node, Annotated[tuple[Kind, str | None], BeforeValidator(values.measure)]] = Field(
        {"count": (Kind.COUNT, None)}, min_length=1
    )
    """What is measured, by its name in the path: count, or sum, max, min of a column."""
    name: Annotated[str, AfterValidator(values.template)]
    """The path of its metrics, with {column} and {measure}."""
    tags: Tags = {}
    """Tags of its series."""
    every: Seconds = 60
    """How often to look."""
    cron: Annotated[str, AfterValidator(values.cron)] | None = None
    """When to look: minute, hour, day, month, weekday."""
    cron_zone: Zone = "UTC"
    """By whose clock that is."""
    bucket: Seconds = 60
    """The span of time of a datapoint: a multiple of carbon's finest step."""
    start: Annotated[Literal["now", "beginning"] | int, BeforeValidator(values.start)] = "now"
    """Where a new job begins: now, the beginning, or behind an id."""
    lookback: Seconds | None = None
    """Rows are completed so long after their time."""
    max_age: Seconds = 86_400
    """How long a row that is not completed is waited for."""
    zeros: SecondsOrFalse = 604_800
    """Groups that were seen within so long have zeros, or none has."""
    groups: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(values.groups)] = ()
    """Groups that count as seen always."""
    chunk: int = Field(100_000, ge=1, le=10_000_000)
    """Ids that one statement reads."""
    null_as: Node = "none"
    """The node for NULL."""
    empty_as: Node = "empty"
    """The node for an empty value."""


class File(Section):
    """The whole file."""

    defaults: dict[str, object] = {}
    state: StateSection = Field(default_factory=StateSection)
    graphite: GraphiteSection
    limits: LimitsSection = Field(default_factory=LimitsSection)
    status: StatusSection = Field(default_factory=StatusSection)
    source: dict[Node, SourceSection] = Field(min_length=1)
    job: dict[Node, JobSection] = Field(min_length=1)
