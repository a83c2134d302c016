"""Shell. What a configuration file may hold: its sections and keys, with their defaults.

A value that a model accepts is valid by itself (values.py); what must fit together is checked in related.py.
"""

import os
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from shipper.config import values
from shipper.model import Archive, Care, Kind, Scalar

Seconds = Annotated[int, BeforeValidator(values.duration)]
SecondsOrFalse = Annotated[int | None, BeforeValidator(values.duration_or_false)]
SecondsOrOff = Annotated[int | None, BeforeValidator(values.duration_or_off)]
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
    keep: Seconds = Field(172_800, ge=86_400)


class GraphiteSection(Section):
    """Where the metrics go, and what carbon keeps of them."""

    host: Host = "127.0.0.1"
    port: int = Field(2003, ge=1, le=65535)
    prefix: Annotated[str, AfterValidator(values.prefix)] | None = None
    tags: Tags = {}
    retentions: Annotated[tuple[Archive, ...], BeforeValidator(values.retentions)]
    timeout: Seconds = Field(10, le=3600)
    batch: int = Field(2500, ge=1, le=10000)  # relays queue 10,000
    proof: Literal["replay", "readback", "none"] = "replay"
    replay: list[Seconds] = Field([60, 600, 3600], min_length=1)
    render_url: Annotated[str, AfterValidator(values.render_url)] | None = None


class StatusSection(Section):
    """Where the service tells how it does, over HTTP."""

    listen: Annotated[str, AfterValidator(values.listen)] | None = None


class LimitsSection(Section):
    """What a mistake in a job must not grow beyond."""

    series: int = Field(10_000, ge=1)


class SourceSection(Section):
    """A database to count in."""

    url: Annotated[str, AfterValidator(values.url)] | None = Field(None, repr=False)  # a reference may hold a password
    kind: Literal["mysql", "mariadb", "postgresql"] = "mysql"
    host: Host | None = None
    port: int | None = Field(None, ge=1, le=65535)
    socket: Path | None = None
    database: str | None = Field(None, min_length=1)
    user: str | None = None
    password: str | None = Field(None, repr=False)
    credentials: str | None = None
    tls: Literal["verify-identity", "verify-ca", "off"] | None = None
    tls_ca: Path | None = None
    timeout: Seconds = Field(30, le=3600)
    connections: int = Field(4, ge=1, le=100)
    settle: Seconds = 10
    guard: Literal["auto", "off"] = "auto"
    hold_max: Seconds = 300
    recheck: SecondsOrOff = 3600
    reset: Literal["hold", "max", "zero"] = "hold"
    lag_query: str | None = Field(None, min_length=1)
    max_skew: Seconds = 300

    @property
    def care(self) -> Care:
        """Return what a capture is to do about rows that come late, and about a table that went back."""
        return Care(self.hold_max, self.recheck, self.reset)


class JobSection(Section):
    """What to count, where, how often, under which names."""

    title: str = ""
    source: Annotated[tuple[str, ...], BeforeValidator(values.sources)] = ()
    table: Annotated[str, AfterValidator(values.table)]
    id: Identifier
    time: Identifier | None = None
    time_zone: Zone = "UTC"
    where: dict[Identifier, Tests] = {}
    where_sql: Annotated[str, AfterValidator(values.where_sql)] | None = Field(None, min_length=1)
    sql: str | None = Field(None, min_length=1)
    by: list[Identifier] = []
    measure: dict[Node, Annotated[tuple[Kind, str | None], BeforeValidator(values.measure)]] = Field(
        {"count": (Kind.COUNT, None)}, min_length=1
    )
    name: Annotated[str, AfterValidator(values.template)]
    tags: Tags = {}
    every: Seconds = 60
    cron: Annotated[str, AfterValidator(values.cron)] | None = None
    cron_zone: Zone = "UTC"
    bucket: Seconds = 60
    start: Annotated[Literal["now", "beginning"] | int, BeforeValidator(values.start)] = "now"
    revisit: Seconds | None = None
    max_age: Seconds = 86_400
    zeros: SecondsOrFalse = 604_800
    groups: Annotated[tuple[tuple[str, ...], ...], BeforeValidator(values.groups)] = ()
    chunk: int = Field(100_000, ge=1, le=10_000_000)
    null_as: Node = "none"
    empty_as: Node = "empty"


class File(Section):
    """The whole file."""

    defaults: dict[str, object] = {}
    state: StateSection = Field(default_factory=StateSection)
    graphite: GraphiteSection
    limits: LimitsSection = Field(default_factory=LimitsSection)
    status: StatusSection = Field(default_factory=StatusSection)
    source: dict[Node, SourceSection] = Field(min_length=1)
    job: dict[Node, JobSection] = Field(min_length=1)
