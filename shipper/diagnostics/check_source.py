"""A source, its tables, and the queries of its jobs: from what all of them need to what one needs.

Strategy: what fails is told, and what needs it is left out. So a column that is missing spoils its own jobs only, and a
server that does not answer is asked once.

What a look has found.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

from shipper.config.load import Config
from shipper.config.problems import suggest
from shipper.config.sections import SourceSection
from shipper.core import durations
from shipper.core.errors import QueryRefused, ShipperError
from shipper.core.model import Job, Observation, Query, Window
from shipper.source.catalog import Table
from shipper.source.access import Access, Denied
from shipper.source.grants import granting, indexing, transactional
from shipper.source.inspection import Examination, Session
from shipper.source.statement import columns_of


class Finding(NamedTuple):
    """One thing that was looked at; remedy is empty where nothing is wrong."""

    is_good: bool
    subject: str
    text: str
    remedy: str = ""


def attempted(subject: str, looks: Iterator[Finding]) -> Iterator[Finding]:
    """Yield what a look finds, and at its end why it could not go on: what comes after it is looked at all the same."""
    try:
        yield from looks
    except ShipperError as error:
        yield Finding(False, subject, str(error), error.hint or "")


FEW_ROWS = 1000  # a table of so few may be read whole, whatever its indexes
NEWEST_ROWS = 10_000
"""Among so many two rows with one id are looked for, where no index keeps them out: a moment's work."""
AHEAD_SECONDS = 900  # no clock is off by so much, and every zone that is not UTC is


def looks_at_source(config: Config, name: str) -> Iterator[Finding]:
    """Look at a source, at its tables, and at the queries of its jobs."""
    access, section = config.access(name), config.sources[name]
    tables: dict[tuple[str, str], list[Job]] = {}
    for job in config.jobs.values():
        if job.source == name:
            tables.setdefault((job.query.table, job.query.id), []).append(job)
    with closing(Examination(name, access)) as source:
        session = source.session()
        yield from _looks_at_session(source, section, session)
        yield from attempted(f"source {name}", _looks_at_lag(source, section, session))
        for (path, _), jobs in tables.items():
            look = _TableLook(source, access, section, session, path, jobs)
            yield from attempted(look.subject, look.findings())


def _looks_at_session(source: Examination, section: SourceSection, session: Session) -> Iterator[Finding]:
    subject, told = f"source {source.name}", [str(source), session.server, f"{session.seconds * 1000:.0f} ms"]
    if session.account is not None:
        told += [f"{session.tls} ({source.verifies})" if session.tls else "no TLS", f"as {session.account}"]
    yield Finding(True, subject, ", ".join(told))
    if session.zone:
        remedy = "A proxy in between has undone `SET time_zone`: let it keep what a session sets, or go past it."
        yield Finding(False, subject, f"its sessions are {session.zone:+d} s off UTC", remedy)
    if abs(session.ahead) > section.max_skew:
        remedy = "Set both by NTP; `timedatectl` tells how ours is set. Until then jobs do less than they could."
        yield Finding(False, subject, f"its clock is {session.ahead:+d} s off ours", remedy)


def _looks_at_lag(source: Examination, section: SourceSection, session: Session) -> Iterator[Finding]:
    """Say how far a replica is behind, or that nobody would know."""
    if section.lag_query is not None:
        yield Finding(True, f"source {source.name}", f"as a replica it is {source.lag():.0f} s behind")
    elif session.is_read_only:
        remedy = "Is it a replica? Say `lag_query` in the source: while it falls behind, `late` does not pass."
        yield Finding(False, f"source {source.name}", "the server is read-only", remedy)


@dataclass(frozen=True, slots=True)
class _TableLook:
    """One table, and the jobs on it."""

    source: Examination
    access: Access
    section: SourceSection
    session: Session
    path: str
    jobs: Sequence[Job]

    @property
    def subject(self) -> str:
        """Name it."""
        return f"table {self.path} of {self.source.name}"

    def findings(self) -> Iterator[Finding]:
        """Look at its columns, at its id, then at the jobs that have all their columns."""
        table = self.source.table(self.path)
        columns = set().union(*(columns_of(job.query) for job in self.jobs))
        refused = self.source.unreadable(self.path, columns)
        yield from self._unreadable(table, refused)
        query = self.jobs[0].query
        if query.id in refused:
            return
        if bad := self._id(table, query.id):
            yield bad
            return
        observation = self.source.observe(query)
        late = durations.show(self.section.late)
        text = f"ids up to {observation.id}; rows are counted if they appear within {late} after their id was given out"
        yield Finding(True, self.subject, text)
        yield from self._ids(table, query)
        for job in self.jobs if table.engine is None else ():  # else none of them runs
            if not columns_of(job.query) & refused.keys():
                yield from attempted(f"job {job.name}", self._job(job, table, observation))

    def _unreadable(self, table: Table, refused: Mapping[str, QueryRefused]) -> Iterator[Finding]:
        """Tell which columns may not be read, with the GRANT, and which are not there."""
        denied = {column for column, error in refused.items() if isinstance(error, Denied)}
        missing = sorted(refused.keys() - denied)
        if denied:
            account = self.session.account or ""
            remedy = "\n".join(granting(self.access, account, {self.path: denied}))
            yield Finding(False, self.subject, f"{account} may not read {self._told(denied)}", remedy)
        if missing and not table.columns:  # there is no such table
            yield Finding(False, self.subject, str(refused[missing[0]]), refused[missing[0]].hint or "")
            return
        for column in missing:
            remedy = suggest(column, table.columns)
            yield Finding(False, self.subject, f"it has no column {self._told({column})}", remedy)

    def _told(self, columns: set[str]) -> str:
        """Name columns, and the jobs that need them."""
        jobs = [job.name for job in self.jobs if columns_of(job.query) & columns]
        return f"{', '.join(sorted(columns))} (job {', '.join(jobs)})"

    def _id(self, table: Table, name: str) -> Finding | None:
        """Say what is wrong with the id column."""
        column = table.columns.get(name)
        if column is not None and not column.is_integer:
            remedy = "`id` names a column of integers that only grow, from 1 to 2^64 - 1."
            return Finding(False, self.subject, f"{name} is of type {column.type}, which is not an id", remedy)
        if table.is_view or not table.columns or name.lower() in map(str.lower, table.leading.values()):
            return None
        text = f"no index begins with {name}: each window would read the whole table"
        return Finding(False, self.subject, text, indexing(self.access, self.path, name))

    def _ids(self, table: Table, query: Query) -> Iterator[Finding]:
        """Look whether each row can be told from all others by its id, for good."""
        if not self.source.is_unique(query):
            yield self._unproven(query)
        if rows := self.source.uncountable(query):
            remedy = "Give them ids from 1 on. Until then they are counted as `no_id` (`shipper status`)."
            yield Finding(False, self.subject, f"rows without {query.id}, or with one below 1: {rows}", remedy)
        if table.engine is not None:
            text = f"its engine, {table.engine}, has no transactions: no look is of one moment, so its jobs do not run"
            yield Finding(False, self.subject, text, transactional(self.access, self.path))
        if table.reused == query.id:
            text = f"{query.id} is not AUTOINCREMENT: an id is given again once the newest row is deleted"
            yield Finding(True, self.subject, f"{text}, and the row that has it then is not counted")

    def _unproven(self, query: Query) -> Finding:
        """Say whether two rows have the same id, where no index keeps that out."""
        identity = self.source.twice(query, NEWEST_ROWS)
        if identity is None:
            text = f"no index says that {query.id} is unique: two rows with the same one would stop its jobs"
            return Finding(True, self.subject, text)
        remedy = "`id` must name a column in which no two rows have the same value."
        return Finding(False, self.subject, f"two rows have the {query.id} {identity}", remedy)

    def _job(self, job: Job, table: Table, observation: Observation) -> Iterator[Finding]:
        """Have the newest row counted as the job would, once it is known that this reads no more than that."""
        query = self.source.prepared(job.query)
        window = Window(max(observation.id - 1, 0), max(observation.id, 1))
        plan = self.source.plan(query, window)
        if plan.is_scan and (plan.rows is None or plan.rows > FEW_ROWS):
            remedy = (
                f"Is it a view, or are its statistics old (ANALYZE)? `shipper preview {job.name}` has the statement."
            )
            yield Finding(False, f"job {job.name}", f"each window reads the whole table: {plan}", remedy)
            return
        self.source.read(query, window)
        yield self._time(job, table, observation) or Finding(True, f"job {job.name}", f"counted by {plan.text}")

    def _time(self, job: Job, table: Table, observation: Observation) -> Finding | None:
        """Say if the job's time cannot be what it says."""
        query = job.query
        if query.time is None or query.sql is not None:
            return None
        column = table.columns.get(query.time)
        if column is not None and column.is_moment and query.time_zone != "UTC":
            remedy = "Leave `time_zone` out: the database gives such a column in UTC."
            return Finding(False, f"job {job.name}", f"{query.time} is a {column.type}, and needs no zone", remedy)
        newest, time = self.source.newest(query, observation.id)
        if time is not None and time > observation.time + AHEAD_SECONDS:
            ahead = f"{query.time} of its newest row, id {newest}, is {time - observation.time} s in the future"
            remedy = "Does `time_zone` name the clock that wrote it? Else that row is wrong, and counted as `future`."
            return Finding(False, f"job {job.name}", ahead, remedy)
        return None
