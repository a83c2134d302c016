"""Rules about several values of a configuration: which of them do not fit together."""

import re
from collections.abc import Iterable, Iterator
from itertools import chain, pairwise
from math import ceil

from shipper.config.collisions import collisions
from shipper.config.fragments import fragment_problems, statement_problems
from shipper.config.keys import File, GraphiteSection, JobSection, SourceSection, StateSection
from shipper.config.problems import Place, Problem, suggest
from shipper.config.references import NOT_READ_URL
from shipper.config.values import toml
from shipper.core import durations
from shipper.core.paths import MEASURE, placeholders
from shipper.core.retention import EDGE_SECONDS, ROOM_SECONDS
from shipper.core.retry import READ_SECONDS

SOURCE = "source"  # the placeholder
BUCKET = "bucket"  # the time column of custom sql
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_CONDITIONS = ("where", "where_sql", "by_sql", "measure", "time_unit", "time_sql")


def related(parsed: File, jobs: Iterable[tuple[str, str]]) -> Iterator[Problem]:
    """Yield all problems; jobs are the names of sections, each with the full template of one of its series."""
    yield from _graphite_problems(parsed.graphite)
    yield from _state_problems(parsed.state, parsed.graphite)
    if parsed.audit.cron is not None and parsed.graphite.render_url is None:
        remedy = 'Add graphite-web\'s address to [graphite], as in render_url = "http://graphite.internal".'
        yield Problem(("audit", "cron"), "an audit reads Graphite, and render_url is missing", remedy)
    for name, source in parsed.source.items():
        yield from _source_problems(("source", name), source)
        yield from statement_problems(("source", name, "lag_query"), source.lag_query, [_dialect(source)])
        if source.late > parsed.state.keep:
            keep = durations.show(parsed.state.keep)
            remedy = f"Make it at most {keep}, or raise `keep`: no late row can be added to a deleted total."
            yield Problem(("source", name, "late"), "`late` is longer than [state] keep", remedy)
    for name, job in parsed.job.items():
        place = ("job", name)
        yield from _sources_of_job(place, job, parsed)
        yield from _bucket_problems(place, job, parsed.graphite)
        yield from _template_problems(place, job, parsed.graphite)
        yield from _query_problems(place, job)
        sources = [parsed.source[source] for source in sources_of(job, parsed) if source in parsed.source]
        dialects = {_dialect(source) for source in sources if source.url != NOT_READ_URL}
        yield from fragment_problems(place, job, dialects)
        yield from statement_problems((*place, "sql"), job.sql, dialects)
    yield from collisions(jobs, parsed.graphite.prefix)


def _graphite_problems(graphite: GraphiteSection) -> Iterator[Problem]:
    if graphite.replay[-1] > ROOM_SECONDS:
        most = durations.show(ROOM_SECONDS)
        remedy = f"Make each time of `replay` at most {most}: after that, an archive may reject the datapoints."
        yield Problem(("graphite", "replay"), "the last replay comes too late", remedy)
    if sorted(graphite.replay) != graphite.replay:
        remedy = 'Write the shortest first: ["1m", "10m", "1h"].'
        yield Problem(("graphite", "replay"), "replay is not in order", remedy)
    if graphite.render_url is not None and graphite.proof == "replay" and graphite.replay[-1] < READ_SECONDS:
        remedy = f"Make the last time of `replay` at least {READ_SECONDS:.0f}s: before that, no sample is read back."
        yield Problem(
            ("graphite", "replay"), "values would be taken as stored before the first sample is read back", remedy
        )
    if graphite.proof == "readback" and graphite.render_url is None:
        remedy = 'Add graphite-web\'s address, as in render_url = "http://graphite.internal".'
        yield Problem(("graphite", "proof"), 'render_url is missing for proof = "readback"', remedy)
    for key in sorted({"host", "port"} & graphite.model_fields_set) if graphite.hosts else ():
        remedy = 'Write each receiver into hosts, as in hosts = ["relay1.internal:2003", "relay2.internal:2003"].'
        yield Problem(("graphite", key), f"hosts and {key}: use only one", remedy)


def _state_problems(state: StateSection, graphite: GraphiteSection) -> Iterator[Problem]:
    if state.database is None:
        for key in ("user", "password", "tls", "tls_ca", "name", "lease"):
            if key in state.model_fields_set:
                remedy = "Remove it, or set `database` to the URL of a PostgreSQL."
                yield Problem(("state", key), f"{key} has no effect without database", remedy)
    elif graphite.timeout > state.lease:
        lease = durations.show(state.lease)
        remedy = f"Make it at most the lease, {lease}; or raise [state] lease: a delivery must end within it."
        yield Problem(("graphite", "timeout"), "`timeout` is longer than [state] lease", remedy)


def has_time(job: JobSection) -> bool:
    """Whether its rows have an event time; in custom sql it is the column `bucket`."""
    if job.sql is None:
        return job.time is not None or job.time_sql is not None
    return re.search(rf"\b{BUCKET}\b", _COMMENT.sub(" ", job.sql), re.IGNORECASE) is not None


def sources_of(job: JobSection, parsed: File) -> list[str]:
    """Return the names of a job's sources."""
    return list(job.source) or list(parsed.source)[:1]


def _dialect(source: SourceSection) -> str:
    """Return mysql, mariadb, postgresql or sqlite."""
    return source.kind if source.url is None else re.split("[+:]", source.url)[0]


def _source_problems(place: Place, source: SourceSection) -> Iterator[Problem]:
    parts = [key for key in ("host", "port", "socket", "database") if getattr(source, key) is not None]
    if source.url is not None and parts:
        yield Problem((*place, parts[0]), f"url and {parts[0]}: use only one", "Write the url, or its parts.")
    if "url" not in source.model_fields_set and (
        source.database is None or (source.host is None and source.socket is None)
    ):
        remedy = 'Add, for example, url = "mysql+pymysql://db1.internal/app", or host and database.'
        yield Problem(place, "the source has no url", remedy)
    if source.url is not None and source.url.startswith("sqlite"):
        for key in ("user", "password", "tls", "tls_ca", "server_public_key", "credentials"):
            if key in source.model_fields_set:
                yield Problem((*place, key), f"{key} has no effect on a file", "Remove it: SQLite has no server.")
    if source.host is not None and source.socket is not None:
        yield Problem((*place, "socket"), "host and socket: use only one", "Remove one of them.")
    if source.server_public_key is not None and _dialect(source) == "postgresql":
        remedy = "Remove it: only MySQL encrypts passwords with a key."
        yield Problem((*place, "server_public_key"), "server_public_key is for MySQL only", remedy)
    if source.credentials is not None and _dialect(source) not in {"mysql", "mariadb"}:
        remedy = 'Write user = "NAME" and password = { credential = "NAME" }: only MySQL has option files.'
        yield Problem((*place, "credentials"), "credentials are for MySQL only", remedy)


def _sources_of_job(place: Place, job: JobSection, parsed: File) -> Iterator[Problem]:
    if not job.source and len(parsed.source) > 1:
        yield Problem((*place, "source"), "`source` is missing", f"Choose one of: {', '.join(parsed.source)}.")
    names = sources_of(job, parsed)
    for name in names:
        if name not in parsed.source:
            yield Problem((*place, "source"), f'no source "{name}"', suggest(name, parsed.source))
    if len(names) > 1 and SOURCE not in _used(job):
        remedy = 'Put {source} into the name, as in "{source}.logins.{measure}": each source needs separate series.'
        yield Problem((*place, "name"), "jobs on several sources would write the same metric path", remedy)


def _bucket_problems(place: Place, job: JobSection, graphite: GraphiteSection) -> Iterator[Problem]:
    finest, every = graphite.retentions[0], 0 if job.cron else job.every
    if job.cron and "every" in job.model_fields_set:
        yield Problem((*place, "cron"), "`every` and `cron`: use only one", "Remove one of them.")
    if job.bucket % finest.step:
        remedy = f"Carbon keeps one value per {finest.step} s (its finest step): make bucket a multiple of that."
        yield Problem((*place, "bucket"), "counts of this bucket would overwrite each other", remedy)
    archives = graphite.retentions
    # a new datapoint must still be in its archive when it is delivered; in the last archive, also when it is replayed
    needed = [(fine.duration, coarse.step) for fine, coarse in pairwise(archives) if job.bucket % coarse.step]
    for length, room in [*needed, (archives[-1].duration, ROOM_SECONDS)]:
        needed_seconds = room + 2 * job.bucket + every + EDGE_SECONDS
        if length < needed_seconds:
            needed_hours = durations.show(ceil(needed_seconds / 3600) * 3600)  # it shows two units, and cuts the rest
            remedy = (
                f"Make the {durations.show(length)} archive at least {needed_hours} long, here and in Carbon: "
                "datapoints must not be too old for it when they are delivered or sent again."
            )
            problem = f'an archive of `retentions` is too short for job "{place[1]}"'
            yield Problem(("graphite", "retentions"), problem, remedy)
    if not has_time(job) and job.bucket < every:
        remedy = "Make `bucket` at least `every`: without `time` each tick fills the bucket in which it runs."
        yield Problem((*place, "bucket"), "`bucket` is shorter than `every`", remedy)


def _template_problems(place: Place, job: JobSection, graphite: GraphiteSection) -> Iterator[Problem]:
    place, used = (*place, "name"), _used(job)
    for name in (name for text in (graphite.tags | job.tags).values() for name in placeholders(text)):
        if name not in {*used, *job.by, MEASURE, SOURCE}:
            remedy = "Use only {measure} and {source} in a tag of all jobs: other placeholders belong to one job."
            yield Problem(("graphite", "tags"), f'{{{name}}} is no column of job "{place[1]}"', remedy)
    for name in used:
        if name not in {*job.by, MEASURE, SOURCE}:
            remedy = suggest(name, [*job.by, MEASURE, SOURCE])
            yield Problem(place, f"{{{name}}} is neither a column of `by` nor {{measure}}", remedy)
    for column in job.by:
        if column not in used:
            remedy = f"Put {{{column}}} into the name, or its groups would overwrite each other."
            yield Problem(place, f"`name` does not contain {{{column}}}, a column of `by`", remedy)
    if MEASURE not in used and (len(job.measure) > 1 or job.sql is not None):
        remedy = "Put {measure} into the name, or its measures would overwrite each other."
        yield Problem(place, "`name` does not contain {measure}", remedy)


def _query_problems(place: Place, job: JobSection) -> Iterator[Problem]:
    yield from _sql_problems(place, job)
    yield from _time_problems(place, job)
    if job.id == job.time and isinstance(job.start, int):
        remedy = 'Write start = "now" or "beginning"; `shipper admin seek` moves such a job to a later time.'
        yield Problem((*place, "start"), "`start` is an id, but `id` is a time column", remedy)
    is_divisible = all(kind.is_divisible for kind, _ in job.measure.values())
    if job.id == job.time and not is_divisible:
        remedy = "Set `id` to an integer key, or remove the distinct measure."
        yield Problem((*place, "measure"), "distinct needs an integer `id`", remedy)
    if not has_time(job) and not is_divisible:
        remedy = "Set `time` to the column of the event time: distinct values are counted for each bucket as a whole."
        yield Problem((*place, "measure"), "distinct needs the key `time`", remedy)
    if job.lookback is not None and not all(kind.has_zero for kind, _ in job.measure.values()):
        remedy = "Use count and sum, or distinct: a maximum that was sent cannot be corrected."
        yield Problem((*place, "measure"), "max and min do not work with `lookback`", remedy)
    for group in job.groups:
        if len(group) != len(job.by):
            remedy = f"Write a value for each column of `by`: {', '.join(job.by) or 'there is none'}."
            yield Problem((*place, "groups"), f"group {toml(list(group))} has {len(group)} values", remedy)
    yield from _label_problems(place, job)
    if twice := [column for column in job.by if job.by.count(column) > 1]:
        yield Problem((*place, "by"), f'`by` names "{twice[0]}" twice', "Name each column once.")


def _label_problems(place: Place, job: JobSection) -> Iterator[Problem]:
    for name in (MEASURE, SOURCE):
        if name in job.by:
            remedy = f'Rename the column: by = ["{name}_column"], by_sql = {{ {name}_column = "{name}" }}.'
            if job.sql is not None:
                remedy = f"Rename the column in `sql` and in `by`: {name} AS {name}_column."
            yield Problem((*place, "by"), f"{{{name}}} is reserved: in a name it is the {name} of the job", remedy)
    for key in ("by_sql", "names"):
        for name in getattr(job, key):
            if name not in job.by:
                remedy = f"Add it to `by`, or use one of: {', '.join(job.by) or 'none'}."
                yield Problem((*place, key, name), f'"{name}" of `{key}` is not in `by`', remedy)
    for column, value in chain.from_iterable(zip(job.by, group, strict=False) for group in job.groups):
        names = job.names.get(column, {})
        if isinstance(names, dict) and value in names and value not in names.values():
            remedy = f'Write "{names[value]}": `groups` has the names that are in the path.'
            yield Problem((*place, "groups"), f'`groups` has "{value}", which `names` calls "{names[value]}"', remedy)


def _time_problems(place: Place, job: JobSection) -> Iterator[Problem]:
    if job.time is not None and job.time_sql is not None:
        yield Problem((*place, "time_sql"), "`time` and `time_sql`: use only one", "Remove one of them.")
    if job.sql is not None or has_time(job):
        return
    if job.time_unit is not None:
        yield Problem(
            (*place, "time_unit"), "`time_unit` needs the key `time`", "Set `time` to the column with the numbers."
        )
    if job.lookback is not None:
        remedy = "Set `time` to the column of the event time; rows may get their time later."
        yield Problem((*place, "lookback"), "`lookback` needs the key `time`", remedy)


def _sql_problems(place: Place, job: JobSection) -> Iterator[Problem]:
    if job.sql is not None:
        statement = _COMMENT.sub(" ", job.sql)
        window = f"Write `WHERE {job.id} > :after AND {job.id} <= :upto`, so that each row is counted once."
        if re.search(r">=\s*:after\b|<\s*:upto\b|between\s+:after\b", statement, re.IGNORECASE):
            yield Problem((*place, "sql"), "`sql` would count rows at the ends of its windows twice", window)
        if job.lookback is not None:
            yield Problem(
                (*place, "lookback"), "`lookback` does not work with `sql`", "Use a `time` column instead of `sql`."
            )
        for name in ("after", "upto"):
            if not re.search(rf"(?<!:):{name}\b", statement):
                yield Problem((*place, "sql"), f"`sql` does not use :{name}", window)
        if re.search(r"\(\s*distinct\b", statement, re.IGNORECASE):
            remedy = 'Use a job without `sql`: measure = { users = "distinct:COLUMN" }. Distinct values do not add up.'
            yield Problem((*place, "sql"), "`sql` counts DISTINCT values, which would be added up", remedy)
        for key in _CONDITIONS:
            if key in job.model_fields_set:
                yield Problem((*place, key), f"`{key}` has no effect beside `sql`", "Put it into the `sql`.")
        if job.time is not None:
            yield Problem((*place, "time"), "`time` has no effect beside `sql`", "Select the time as `bucket`.")


def _used(job: JobSection) -> list[str]:
    return [name for text in (job.name, *job.tags.values()) for name in placeholders(text)]
