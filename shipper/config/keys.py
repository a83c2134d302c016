"""Sections and keys of a configuration file, with their defaults.

A value that a section accepts is valid by itself; rules.py checks which values fit together. The text below a key
describes it to editors.
"""

import os
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shipper.config.job_values import (
    Cron,
    Groups,
    Identifier,
    Measure,
    Names,
    Sources,
    Start,
    Table,
    Tags,
    Template,
    Tests,
)
from shipper.config.values import (
    Address,
    DatabaseUrl,
    Host,
    Listen,
    Node,
    Path,
    Prefix,
    RenderUrl,
    Retentions,
    Seconds,
    SecondsOrFalse,
    Share,
    Url,
    Zone,
)

Name = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A table of the file, without unknown keys and silent conversions."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class StateSection(Section):
    """File of the state, and how long it keeps totals that are delivered."""

    path: Path = Field(default_factory=lambda: f"{os.environ.get('STATE_DIRECTORY', '/var/lib/shipper')}/shipper.db")
    """Absolute path of the SQLite file; under systemd $STATE_DIRECTORY/shipper.db."""
    keep: Seconds = Field("2d", validate_default=True, ge=86_400)
    """Time for which a total is kept after its last change; at least a day."""
    database: DatabaseUrl | None = Field(None, repr=False)  # a reference may hold a password
    """URL of a PostgreSQL that keeps the state, for two machines: one leads, the other stands by; `path` is a copy."""
    user: str | None = None
    """User that connects to it."""
    password: str | None = Field(None, repr=False)
    """Password of that user, always as a reference."""
    tls: Literal["verify-identity", "verify-ca", "off"] | None = None
    """Check of the server's certificate; by default verify-identity for a host that is not local."""
    tls_ca: Path | None = None
    """CA file for the server's certificate; by default the system's CAs."""
    name: Node = Field("shipper", max_length=24)  # an application's name has 63 bytes, and has the host, too
    """Name of the state: its schema in the database, and its lock."""
    lease: Seconds = Field("10s", validate_default=True, ge=3, le=3600)
    """Time after which another machine takes over from one that is silent."""


class GraphiteSection(Section):
    """Address of Carbon, and how it stores the metrics."""

    host: Host = "127.0.0.1"
    """Host of carbon's line receiver."""
    port: int = Field(2003, ge=1, le=65535)
    """Port of carbon's line receiver (plaintext)."""
    hosts: list[Address] | None = Field(None, min_length=1)
    """Equal relays, HOST:PORT, instead of host and port: one is used, and the next when it fails."""
    prefix: Prefix | None = None
    """First nodes of every metric path."""
    tags: Tags = {}
    """Tags of every series."""
    retentions: Retentions
    """Archives that carbon keeps of these series, finest first."""
    timeout: Seconds = Field("10s", validate_default=True, le=3600)
    """Time limit of each step of a delivery."""
    batch: int = Field(2500, ge=1, le=10000)  # relays queue 10,000
    """Datapoints for each connection; relays queue no more than 10,000."""
    proof: Literal["replay", "readback"] = "replay"
    """Evidence that Graphite holds a value: it was sent again, or graphite-web was asked."""
    replay: list[Seconds] = Field(["1m", "10m", "1h"], validate_default=True, min_length=1)
    """Times after the first confirmation at which values are sent again."""
    render_url: RenderUrl | None = None
    """Address of graphite-web, for reading values back."""

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Hosts and ports of the receivers."""
        return self.hosts or [(self.host, self.port)]


class StatusSection(Section):
    """Address of the status page."""

    listen: Listen | None = None
    """Address of the status page: 127.0.0.1:PORT, unix:/PATH, or off."""


class AuditSection(Section):
    """Regular comparison of the sources with Graphite, by the service."""

    cron: Cron | None = None
    """Schedule: minute, hour, day of the month, month, weekday; no audits without it."""
    cron_zone: Zone = "UTC"
    """Time zone of `cron`."""
    span: Seconds = Field("7d", validate_default=True, ge=3600)
    """Length of the time that an audit compares; it ends at the job's "complete until"."""


class LimitsSection(Section):
    """Limits of the damage that a mistake in a job can do."""

    series: int = Field(10_000, ge=1)
    """Maximum number of groups of one job; all further ones are counted together as _other."""


class SourceSection(Section):
    """A database that has tables to count."""

    url: Url | None = Field(None, repr=False)  # a reference may hold a password
    """URL of the database, DIALECT://HOST/DATABASE, without user and password."""
    kind: Literal["mysql", "mariadb", "postgresql"] = "mysql"
    """Kind of the database, instead of a url."""
    host: Host | None = None
    """Host of the database, instead of a url."""
    port: int | None = Field(None, ge=1, le=65535)
    """Port of the database, instead of a url."""
    socket: Path | None = None
    """Unix socket of the database, instead of a url; its directory for PostgreSQL."""
    database: Name | None = None
    """Name of the database, instead of a url."""
    user: str | None = None
    """User that connects, unless `credentials` names one."""
    password: str | None = Field(None, repr=False)
    """Password of that user, always as a reference."""
    credentials: str | None = None
    """MySQL option file with user and password: a systemd credential, a file beside this one, or a path."""
    tls: Literal["verify-identity", "verify-ca", "off"] | None = None
    """Check of the server's certificate; by default verify-identity for a host that is not local."""
    tls_ca: Path | None = None
    """CA file for the server's certificate; by default the system's CAs."""
    server_public_key: Path | None = None
    """File with the public key of a MySQL server, for passwords without TLS."""
    timeout: Seconds = Field("30s", validate_default=True, le=3600)
    """Time limit of a statement."""
    connections: int = Field(4, ge=1, le=100)
    """Maximum number of statements that run at once."""
    late: Seconds = Field("6h", validate_default=True)
    """Time within which a row may appear after the first tick that saw a higher id; later rows are not counted."""
    lag_query: Name | None = None
    """Statement that returns how many seconds a replica is behind, or NULL."""
    background: Share = Field("25%", validate_default=True)
    """Share of the time in which audits and backfills may run statements."""
    max_skew: Seconds = Field("5m", validate_default=True)
    """Largest accepted difference between the clocks of the database and of this machine."""


class JobSection(Section):
    """A count of rows: of which table, how often, under which names."""

    title: str = ""
    """Title for dashboards and the status page."""
    source: Sources = ()
    """Source, or list of sources: one job is made for each."""
    table: Table
    """Table, or SCHEMA.TABLE."""
    id: Identifier
    """Growing integer key; or the indexed time column that is also `time`."""
    time: Identifier | None = None
    """Column of each row's event time."""
    time_zone: Zone = "UTC"
    """Time zone of times that have none."""
    time_unit: Literal["s", "ms", "us"] | None = None
    """Unit of `time`, if it is a number that counts from 1970."""
    time_sql: Name | None = None
    """Event time as an expression in SQL, instead of `time`."""
    where: dict[Identifier, Tests] = {}
    """Conditions on columns: a value, a list of values, or tests."""
    where_sql: Name | None = None
    """Condition in SQL."""
    sql: Name | None = None
    """Custom SQL statement over the ids above :after up to :upto."""
    by: list[Identifier] = []
    """Columns by which rows are grouped: one series for each value."""
    by_sql: dict[Identifier, Name] = {}
    """Expressions in SQL, in place of columns: their names in `by`."""
    names: dict[Identifier, Names] = {}
    """Names of values, by column of `by`: a table of names, or a SELECT of value and name."""
    measure: dict[Node, Measure] = Field({"count": "count"}, validate_default=True, min_length=1)
    """Measures by their name in the path: count, or sum, max, min, distinct of a column."""
    name: Template
    """Metric path, with {column} and {measure}."""
    tags: Tags = {}
    """Tags of this job's series."""
    every: Seconds = Field("1m", validate_default=True)
    """Time between two ticks."""
    cron: Cron | None = None
    """Schedule instead of `every`: minute, hour, day of the month, month, weekday."""
    cron_zone: Zone = "UTC"
    """Time zone of `cron`."""
    bucket: Seconds = Field("1m", validate_default=True)
    """Span of time of one datapoint: a multiple of carbon's finest step."""
    start: Start = "now"
    """Row at which a new job begins: now, the beginning, or after an id."""
    lookback: Seconds | None = None
    """How long rows change after their event time; each tick recounts that span."""
    max_age: Seconds = Field("1d", validate_default=True)
    """How long the job waits for a row whose event time is still NULL."""
    zeros: SecondsOrFalse = Field("7d", validate_default=True)
    """Time for which a group without rows still gets zeros; false for never."""
    groups: Groups = ()
    """Groups that always get zeros."""
    chunk: int = Field(100_000, ge=1, le=10_000_000)
    """Maximum number of ids that one statement reads."""
    null_as: Node = "none"
    """Node of the path for the value NULL."""
    empty_as: Node = "empty"
    """Node of the path for an empty value."""


class File(Section):
    """All sections of a file."""

    defaults: dict[str, object] = {}
    state: StateSection = Field(default_factory=StateSection)
    graphite: GraphiteSection
    audit: AuditSection = Field(default_factory=AuditSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    status: StatusSection = Field(default_factory=StatusSection)
    source: dict[Node, SourceSection] = Field(min_length=1)
    job: dict[Node, JobSection] = Field(min_length=1)
