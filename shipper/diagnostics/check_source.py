"""Checks of a source: its session, its tables, and the queries of its jobs.

Strategy: general checks come before special ones, and a failed check skips those that depend on it. A missing column
fails only the jobs that need it, and a server that does not answer is asked once.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from shipper.config.keys import SourceSection
from shipper.config.load import Config
from shipper.config.problems import nearest, suggest
from shipper.core import durations
from shipper.core.errors import QueryRefused, RowRefused
from shipper.core.model import Job, Observation, Query, Span, TimeForm, Window
from shipper.diagnostics.check_service import Service, check_login, explained
from shipper.diagnostics.check_state import Stored, check_job
from shipper.diagnostics.finding import Finding, attempted
from shipper.source.access import Denied, LoginRefused
from shipper.source.dialects.by_name import dialect_named
from shipper.source.inspection import Examination, Session
from shipper.source.statements.clauses import columns_of
from shipper.source.tables.catalog import Table
from shipper.source.tables.grants import granting, indexing, shared_id, transactional, usable, without_id
from shipper.source.tables.times import PLAUSIBLE

FEW_ROWS = 1000  # a table of this size may be read completely
NEWEST_ROWS = 10_000
"""Number of newest rows searched for duplicate ids, where no index excludes them, and for times: quick in any table."""
_ZONE = "Set `time_zone` to the zone of the program that writes it."
AHEAD_SECONDS = 900  # more than any clock error, less than any offset of a time zone from UTC


def check_source(config: Config, name: str, known: Stored, service: Service | None) -> Iterator[Finding]:
    """Check a source, its tables, the queries of its jobs, and whether they are still those that were counted."""
    access, section = config.access(name), config.sources[name]
    tables: dict[tuple[str, str, bool], list[Job]] = {}
    for job in config.jobs.values():
        if job.source == name:
            tables.setdefault((job.query.table, job.query.id, job.query.is_along), []).append(job)
    if access.kind != "sqlite" and dialect_named(access.kind).user(access) is None:  # root's and the service's differ
        text = "no user is configured: the service and each command log in with the name of the user that runs them"
        yield Finding(True, f"source {name}", text, f'Set user = "NAME" in [source.{name}].')
    with closing(Examination(name, access)) as source:
        try:
            session = source.session()
        except LoginRefused as error:
            raise explained(error, name, access, service) from error
        yield from _check_session(source, section, session)
        yield from check_login(name, service)
        yield from attempted(f"source {name}", _check_lag(source, section, session))
        for (path, *_), jobs in tables.items():
            table = _TableCheck(source, session.account or "", path, jobs, known)
            yield from attempted(table.subject, table.findings())


def _check_session(source: Examination, section: SourceSection, session: Session) -> Iterator[Finding]:
    subject, facts = f"source {source.name}", [str(source), session.server, f"{session.seconds * 1000:.0f} ms"]
    if session.is_pooled:
        facts.append("behind a pooler")
    if session.account is not None:
        # how data and passwords are protected on their way
        verified = "not verified" if source.access.verifies == "off" else source.access.verifies
        facts.append(f"{session.tls} ({verified})" if session.tls else "no TLS")
        if source.access.answers_only:
            facts.append("password never sent in clear")
        facts.append(f"as {session.account}")
    yield Finding(True, subject, ", ".join(facts))
    if abs(session.ahead) > section.max_skew:
        direction = "behind" if session.ahead > 0 else "ahead of"
        remedy = (
            "Synchronize both clocks by NTP (`timedatectl`). Until then merging, pruning and zero-fill are suspended."
        )
        text = f"the clock of this machine is {abs(session.ahead)} s {direction} the source's clock"
        yield Finding(False, subject, text, remedy)


def _check_lag(source: Examination, section: SourceSection, session: Session) -> Iterator[Finding]:
    """Report the lag of a replica, or a server that looks like one without a `lag_query`."""
    if section.lag_query is not None:
        yield Finding(True, f"source {source.name}", f"replication lag {source.lag():.0f} s")
    elif session.is_read_only:
        remedy = (
            "If it is a replica, set `lag_query` in its source: without it, rows that reach the replica late may be "
            'missed. If it is not a replica, set lag_query = "SELECT 0".'
        )
        yield Finding(False, f"source {source.name}", "the server is read-only", remedy)


@dataclass(frozen=True, slots=True)
class _TableCheck:
    """Checks of one table and of its jobs."""

    source: Examination
    account: str
    path: str
    jobs: Sequence[Job]
    known: Stored

    @property
    def subject(self) -> str:
        """Return the subject of the results."""
        return f"table {self.path} of {self.source.name}"

    def findings(self) -> Iterator[Finding]:
        """Check its columns, its id, then the jobs of which all columns can be read."""
        table = self.source.table(self.path)
        columns = set().union(*(columns_of(job.query) for job in self.jobs))
        # columns
        errors = self.source.unreadable(self.path, columns)
        yield from self._unreadable(table, errors)
        # the id
        query = self.jobs[0].query
        if query.id in errors:
            return
        if bad := self._id(table, query.id):
            yield bad
            return
        late = durations.show(self.jobs[0].late)
        query = self.source.prepared(query) if query.is_along else query
        observation = self.source.observe(query)
        if query.is_along:
            text = f"counts rows that appear at most {late} after their {query.id}"
        else:
            up_to = f"a late row is counted if it appears at most {late} after a row with a higher id"
            text = f"ids up to {observation.id}; {up_to}"
        yield Finding(True, self.subject, text)
        yield from self._ids(table, query)
        # jobs; on an engine without transactions none runs
        for job in self.jobs if table.nontransactional is None else ():
            if not columns_of(job.query) & errors.keys():
                yield from attempted(f"job {job.name}", self._job(job, table, observation))

    def _unreadable(self, table: Table, errors: Mapping[str, QueryRefused]) -> Iterator[Finding]:
        """Report columns without a grant, with the GRANT, and columns that do not exist."""
        denied = {column for column, error in errors.items() if isinstance(error, Denied)}
        missing = sorted(errors.keys() - denied)
        if denied:
            yield self._denied(table, denied)
        # no such table, or one that cannot be read at all: its columns have one error
        failing = [column for column in missing if not table.columns or column in table.columns]
        if failing:
            error = errors[failing[0]]
            remedy = error.hint or "" if table.columns else self._other_table() or error.hint or ""
            yield Finding(False, self.subject, str(error), remedy)
        for column in () if failing else missing:
            remedy = suggest(column, table.columns)
            yield Finding(False, self.subject, f"no column {self._needed({column})}", remedy)

    def _denied(self, table: Table, columns: set[str]) -> Finding:
        """Report columns that this user may not read; MySQL says the same of those that do not exist."""
        remedy = "\n".join(granting(self.source.access, self.account, {self.path: columns}))
        text = f"{self.account} may not read {self._needed(columns)}"
        if unseen := sorted(columns - table.columns.keys()):
            text += ", or there is no such " + ("column" if table.columns else "table")
            near = [nearest(one, table.columns) for one in unseen]
            meant = [f'Did you mean "{one}"?' for one in near if one] if table.columns else [self._other_table()]
            remedy = "\n".join([*filter(None, meant), f"If the name is right: {remedy}"])
        return Finding(False, self.subject, text, remedy)

    def _other_table(self) -> str | None:
        """Return a remedy if a table has nearly the same name, as in another case."""
        schema, dot, name = self.path.rpartition(".")
        near = nearest(name, self.source.tables_beside(self.path))
        return near and f'Did you mean "{schema}{dot}{near}"?'

    def _needed(self, columns: set[str]) -> str:
        """Return columns, and the jobs that need them."""
        jobs = [job.name for job in self.jobs if columns_of(job.query) & columns]
        return f"{', '.join(sorted(columns))} (job {', '.join(jobs)})"

    def _id(self, table: Table, name: str) -> Finding | None:
        """Return the error of the id column, if there is one."""
        column = table.columns.get(name)
        if column is not None and not column.is_integer and not self.jobs[0].query.is_along:
            remedy = without_id(self.source.access, self.path, name, column.type, is_view=table.is_view)
            return Finding(False, self.subject, f"{name} has type {column.type}, which is not an id", remedy)
        if table.columns and name.lower() not in map(str.lower, table.columns):  # MySQL accepts any case
            text = (
                f"{name} is the database's own column: its values may change (VACUUM changes those of SQLite's rowid)"
            )
            return Finding(False, self.subject, text, without_id(self.source.access, self.path, name))
        indices = [index for index in table.indices if index.column.lower() == name.lower()]
        if table.is_view or not table.columns or any(index.required is None for index in indices):
            return None
        problem, remedy = f"no index begins with {name}", indexing(self.source.access, self.path, name)
        if indices:
            index = indices[0]
            problem = f"the index {index.name} on {name} must be {index.required} to be used"
            remedy = usable(self.source.access, self.path, index)
        return Finding(False, self.subject, f"{problem}: each query would read the complete table", remedy)

    def _ids(self, table: Table, query: Query) -> Iterator[Finding]:
        """Check that every row has an id, that ids are unique and never reused, and that reads are consistent."""
        if not query.is_along and not self.source.is_unique(query):
            yield self._duplicates(query, table)
        if not query.is_along and (rows := self.source.uncountable(query)):
            remedy = "Give them ids from 1 on. Until then they are rejected with the reason `no_id`."
            yield Finding(False, self.subject, f"rows without {query.id}, or with a value below 1: {rows}", remedy)
        if (found := table.nontransactional) is not None:
            whose = "its engine" if found.path == self.path else f"the engine of {found.path}"
            text = f"{whose}, {found.engine}, has no transactions: reads are not consistent, and its jobs do not run"
            yield Finding(False, self.subject, text, transactional(self.source.access, found.path))
        if table.is_opaque:
            text = f"{self.account} does not see which tables this view reads: they need an engine with transactions"
            remedy = (
                "Look at their engines; or grant SELECT on the view and on these tables, and SHOW VIEW on the view."
            )
            yield Finding(True, self.subject, text, remedy)
        if table.reused == query.id:
            text = f"{query.id} is not AUTOINCREMENT: if the newest row is deleted, the next row gets its id"
            yield Finding(True, self.subject, f"{text}, and is not counted")
        if not query.is_along and query.id in table.cycling:
            text = f"a sequence of {query.id} begins again after its last number: rows with reused ids"
            yield Finding(True, self.subject, f"{text} are not counted", table.cycling[query.id])
        if query.is_along and query.id in table.moving:
            text = f"each UPDATE of a row sets {query.id}, and the row is then counted again"
            remedy = "If rows are updated, set `id` and `time` to another time column."
            yield Finding(True, self.subject, text, remedy)

    def _duplicates(self, query: Query, table: Table) -> Finding:
        """Search the newest rows for a duplicate id, where no index excludes it."""
        identity = self.source.twice(query, NEWEST_ROWS)
        if identity is None:
            text = f"no unique index on {query.id}: two rows with the same value would stop its jobs"
            return Finding(True, self.subject, text)
        remedy = shared_id(self.source.access, self.path, query.id, identity, is_view=table.is_view)
        return Finding(False, self.subject, f"two rows have the {query.id} {identity}", remedy)

    def _job(self, job: Job, table: Table, observation: Observation) -> Iterator[Finding]:
        """Count the newest row with the job's query, if its plan does not read the complete table."""
        job = replace(job, query=self.source.prepared(job.query))
        query = job.query
        window = Window(max(observation.id - 1, 0), max(observation.id, 1))
        plan = self.source.plan(query, window)
        if plan.is_scan and (plan.rows is None or plan.rows > FEW_ROWS):
            remedy = "Run ANALYZE, or use a table instead of a view."
            yield Finding(False, f"job {job.name}", f"each query reads the complete table: {plan}", remedy)
            return
        self.source.read(query, window)
        if not query.is_divisible:
            self.source.read_undivided(query, window, Span(0, query.bucket))
        bad = self._time(job, table, observation) if query.sql is None else self._buckets(job, observation)
        yield bad or Finding(True, f"job {job.name}", f"its query works; the database's plan: {plan.text}")
        yield from check_job(job, self.known, self.source, observation)

    def _time(self, job: Job, table: Table, observation: Observation) -> Finding | None:
        """Return the error of the job's time column, if there is one."""
        query = job.query
        if query.time is None:
            return None
        column = table.columns.get(query.time)
        if column is not None and column.is_moment and query.time_zone != "UTC":
            remedy = 'Set time_zone = "UTC" for this job: the database returns such a column in UTC.'
            text = f'time_zone = "{query.time_zone}" is wrong for {query.time}, a {column.type}'
            return Finding(False, f"job {job.name}", text, remedy)
        if query.is_along:
            return self._ahead(job, query, observation) or self._long_ago(job, observation.id, observation)
        newest, time = self.source.newest(query, observation.id)
        if time is None:
            return self._timeless(job, observation.id)
        if time > observation.time + AHEAD_SECONDS:
            ahead = f"{query.time} of its newest row, id {newest}, is {time - observation.time} s in the future"
            remedy = f"{_ZONE} If only this row has a wrong time, change nothing: shipper rejects the row."
            return Finding(False, f"job {job.name}", ahead, remedy)
        return self._long_ago(job, newest, observation)

    def _buckets(self, job: Job, observation: Observation) -> Finding | None:
        """Return the error of custom sql, if it gives none of the newest rows a time of present rows."""
        window = Window(max(observation.id - FEW_ROWS, 0), max(observation.id, 1))
        with suppress(RowRefused):  # jobs set such a row aside
            buckets = [row.bucket for row in self.source.read(job.query, window) if row.bucket is not None]
            if buckets and not any(PLAUSIBLE[0] <= one <= observation.time + AHEAD_SECONDS for one in buckets):
                text = f"`bucket` of its newest rows is {max(buckets)}, but now is {observation.time}"
                remedy = f"Select a time, or seconds since 1970: divide milliseconds by 1000. {_ZONE}"
                return Finding(False, f"job {job.name}", text, remedy)
        return None

    def _long_ago(self, job: Job, newest: int, observation: Observation) -> Finding | None:
        """Return the error of converted times, if those of all newest rows are older than Graphite keeps."""
        query = job.query
        is_converted = query.time_unit is not None or query.time_sql is not None
        oldest = observation.time - job.archives[-1].duration
        if is_converted and newest and (times := self._newest_times(query, newest)) and times.end <= oldest:
            day = datetime.fromtimestamp(oldest, UTC)
            text = f"{query.time} of the newest rows is before {day:%Y-%m-%d}: they are rejected as `too_old`"
            way = 'convert them by `time_sql`, as in time_sql = "COLUMN + 978307200" for 2001'
            if query.is_along:
                way = "set `id` and `time` to an indexed, generated column that counts from 1970"
            remedy = (
                f"If its numbers count from another year than 1970, {way}. If the rows are that old, change nothing."
            )
            return Finding(False, f"job {job.name}", text, remedy)
        return None

    def _newest_times(self, query: Query, newest: int) -> Span | None:
        """Return the times of the newest rows, None without any."""
        oldest = self.source.nth_id(query, Window(0, newest), NEWEST_ROWS, is_backward=True)
        return self.source.times(query, Window((oldest or 1) - 1, newest))

    def _timeless(self, job: Job, newest: int) -> Finding | None:
        """Return the error of a job whose newest row has no time, if no row near it has one."""
        query, text, remedy = job.query, None, ""
        if newest == 0 and query.time_form is TimeForm.NUMBER and query.time_unit is None:
            text = f"{query.time} contains numbers, and the table has no row that shows their unit"
            remedy = (
                'Set `time_unit` to "s", "ms" or "us". Only for numbers such as 20261128161731, '
                "leave it out, and expect this error until the first row exists."
            )
        elif newest > 0 and job.lookback is None and self._newest_times(query, newest) is None:
            text = f"{query.time} is NULL or 0 in all of the newest rows, which are rejected as `no_time`"
            remedy = "Set `time` to another column; if this column is filled in later, add `lookback`."
        return None if text is None else Finding(False, f"job {job.name}", text, remedy)

    def _ahead(self, job: Job, query: Query, observation: Observation) -> Finding | None:
        """Return the error of rows that are ahead of the source's clock, along a time."""
        rows = self.source.beyond(query, self.source.local(query, observation.time) + AHEAD_SECONDS)
        if not rows:
            return None
        remedy = f"{_ZONE} Until their time comes, rows are rejected as `future`."
        return Finding(False, f"job {job.name}", f"rows whose {query.time} is in the future: {rows}", remedy)
