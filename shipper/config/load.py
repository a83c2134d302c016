"""TOML to a frozen Config, or every problem at once with its line and a remedy.

Three stages: the files become one table with its references resolved; the models of sections.py say what it may hold;
related.py what must fit together.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.engine import URL, make_url

from shipper.config.problems import Document, Problem, explained, not_toml, report
from shipper.config.references import KINDS, References, option_file
from shipper.config.rules import BUCKET, SOURCE, has_time, related, sources_of
from shipper.config.sections import File, GraphiteSection, JobSection, SourceSection, StateSection, StatusSection
from shipper.config.values import holds_password
from shipper.core.errors import ConfigError
from shipper.core.measures import Measure
from shipper.core.model import Condition, Job, Query
from shipper.core.paths import MEASURE
from shipper.source.connect import Access

DEFAULT_PATH = "/etc/shipper/shipper.toml"

_SCHEDULE = {"every", "cron"}
_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgresql": "postgresql+psycopg"}


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that can be run."""

    file: str
    state: StateSection
    graphite: GraphiteSection
    status: StatusSection
    sources: Mapping[str, SourceSection]
    jobs: Mapping[str, Job]

    def named(self, name: str) -> list[Job]:
        """Return the job of a name, or those that it is on several sources.

        Raises:
            ConfigError: there is none.
        """
        found = [job for job in self.jobs.values() if name in {job.name, job.name.partition("@")[0]}]
        if not found:
            hint = f"There are: {', '.join(self.jobs)}."
            raise ConfigError(f"choose jobs: there is no {name!r} in {self.file}", hint=hint)
        return found

    def access(self, name: str) -> Access:
        """Say how a source is reached.

        Raises:
            ConfigError: its credentials are not where they should be.
        """
        section = self.sources[name]
        file = section.credentials and option_file(section.credentials, name, Path(self.file).parent)
        return Access(
            _url(section),
            section.timeout,
            file,
            section.tls,
            section.tls_ca,
            lag_query=section.lag_query,
        )


def load(file: str, *, with_credentials: bool = True) -> Config:
    """Read a configuration, and the files of conf.d beside it; who connects nowhere needs no credentials.

    Raises:
        ConfigError: with a line `FILE:LINE: what is wrong` and a remedy for every problem found.
    """
    folder = Path(file).parent
    documents = [_read(path) for path in (file, *sorted(map(str, folder.glob("conf.d/*.toml"))))]
    references = References(folder, with_credentials=with_credentials)
    raw, problems, secrets = references.resolved(_joined(documents)), references.problems, references.secrets
    problems += [*_job_files(documents), *_passwords(documents[0]), *_default_problems(raw)]
    try:
        parsed = File.model_validate(_with_defaults(raw))
    except ValidationError as error:
        places = {problem.place for problem in problems}
        problems += [explained(one, one["loc"]) for one in error.errors() if one["loc"] not in places]
        raise report(documents, problems, secrets) from None
    made = {name: _jobs(name, job, parsed) for name, job in parsed.job.items()}
    problems += related(parsed, [(name, path) for name, jobs in made.items() for job in jobs for path in _paths(job)])
    if problems:
        raise report(documents, problems, secrets)
    jobs = {job.name: job for jobs in made.values() for job in jobs}
    return Config(file, parsed.state, parsed.graphite, parsed.status, parsed.source, jobs)


def _read(file: str) -> Document:
    try:
        text = Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"read configuration {file}: {error.strerror}",
            hint=f"Name it with --config FILE, or put it at {DEFAULT_PATH}.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"read configuration {file}: not UTF-8", hint="TOML files are UTF-8 text.") from error
    try:
        return Document(file, text, tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+)", str(error))
        raise not_toml(file, text, error, where and where[1]) from error


def _joined(documents: list[Document]) -> dict[str, Any]:
    """Add the jobs of further files to those of the first."""
    main, *others = documents
    jobs = main.raw.get("job", {})
    if not others or not isinstance(jobs, dict):
        return main.raw
    for document in others:
        added = document.raw.get("job", {})
        jobs = (added if isinstance(added, dict) else {}) | jobs
    return main.raw | {"job": jobs}


def _job_files(documents: list[Document]) -> Iterator[Problem]:
    """Refuse in further files what is not a job, and jobs that stand in two."""
    owner: dict[str, Document] = {}
    for document in documents:
        main = documents[0]
        if document is not main:
            for key in document.raw.keys() - {"job"}:
                remedy = f"Further files add jobs only: put it into {main.file}."
                yield Problem((key,), f'"{key}" is not a job', remedy, document.file)
        jobs = document.raw.get("job", {})
        if document is not main and not isinstance(jobs, dict):
            yield Problem(("job",), "job is not a section", "Write [job.NAME].", document.file)
        for name in jobs if isinstance(jobs, dict) else ():
            if name in owner:
                message = f'job "{name}" is defined in {owner[name].file} and in {document.file}'
                yield Problem(("job", name), message, "Rename one, or take it out.", document.file)
            owner.setdefault(name, document)


def _passwords(main: Document) -> Iterator[Problem]:
    """Refuse secrets that stand in the file itself, where a reference would do."""
    sources = main.raw.get("source")
    for name, source in sources.items() if isinstance(sources, dict) else ():
        if not isinstance(source, dict):
            continue
        password = source.get("password")
        if password is not None and not (isinstance(password, dict) and password.keys() <= set(KINDS)):
            remedy = 'Write password = { credential = "NAME" }, { file = "PATH" } or { env = "NAME" }.'
            yield Problem(("source", name, "password"), "a password stands in the file", remedy)
        url = source.get("url")
        if isinstance(url, str) and _may_hold_password(url):
            remedy = (
                'Put user and password into a MySQL option file ([client]), and name it with `credentials = "FILE"`; '
                'or write user = "NAME" and password = { credential = "NAME" }.'
            )
            yield Problem(("source", name, "url"), "url holds a password", remedy)


def _may_hold_password(url: str) -> bool:
    try:
        return holds_password(url)
    except Exception:  # noqa: BLE001 - whatever is wrong with it, the models tell
        return False


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Give each job what [defaults] says and it does not say itself."""
    defaults, jobs = raw.get("defaults", {}), raw.get("job")
    if not isinstance(defaults, dict) or not isinstance(jobs, dict):
        return raw
    merged = {name: _over(defaults, job) if isinstance(job, dict) else job for name, job in jobs.items()}
    return raw | {"job": merged}


def _over(defaults: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Put a job over the defaults; its own `every` or `cron` takes the place of either."""
    if job.keys() & _SCHEDULE:
        defaults = {key: value for key, value in defaults.items() if key not in _SCHEDULE}
    return defaults | job


def _default_problems(raw: dict[str, Any]) -> list[Problem]:
    """Look at [defaults] by itself: a job that says otherwise would hide what is wrong there."""
    defaults = raw.get("defaults")
    if not isinstance(defaults, dict):
        return []
    try:
        JobSection.model_validate({"table": "any", "id": "any", "name": "any"} | defaults)
    except ValidationError as error:
        return [explained(one, ("defaults", *one["loc"])) for one in error.errors()]
    return []


def _url(section: SourceSection) -> URL:
    if section.url is not None:
        url = make_url(section.url)
    else:
        socket = {} if section.socket is None else {"unix_socket": section.socket}
        if section.kind == "postgresql" and section.socket:
            socket = {"host": section.socket}  # a directory
        url = URL.create(
            _DRIVERS[section.kind], host=section.host, port=section.port, database=section.database, query=socket
        )
    return url.set(username=section.user or url.username, password=section.password or url.password)


def _jobs(name: str, job: JobSection, parsed: File) -> list[Job]:
    """Make a job for each of its sources."""
    sources = sources_of(job, parsed)
    return [_job(name if len(sources) == 1 else f"{name}@{source}", job, source, parsed) for source in sources]


def _job(name: str, job: JobSection, source: str, parsed: File) -> Job:
    return Job(
        name=name,
        source=source,
        query=_query(job),
        every=None if job.cron else job.every,
        cron=job.cron,
        cron_zone=job.cron_zone,
        start=job.start,
        chunk=job.chunk,
        template=_template(job, source, parsed.graphite),
        archives=parsed.graphite.retentions,
        null_as=job.null_as,
        empty_as=job.empty_as,
        zeros=job.zeros,
        groups=job.groups,
        lookback=job.lookback,
        max_age=job.max_age,
        max_groups=parsed.limits.series,
        title=job.title,
        keep=parsed.state.keep,
        late=parsed.source.get(source, SourceSection()).late,  # one that is not there is told by related.py
    )


def _paths(job: Job) -> set[str]:
    """Return the template of each measure; those of a statement of one's own are not known yet."""
    measures = [] if job.query.sql else job.query.measures
    return {job.template.replace(f"{{{MEASURE}}}", measure.name) for measure in measures} or {job.template}


def _query(job: JobSection) -> Query:
    is_timed_sql = job.sql is not None and has_time(job)
    return Query(
        table=job.table,
        id=job.id,
        time=BUCKET if is_timed_sql else job.time,
        bucket=job.bucket,
        where=tuple(
            Condition(column, operator, values)  # type: ignore[arg-type] # values.conditions accepts no other
            for column, tests in job.where.items()
            for operator, values in tests
        ),
        where_sql=job.where_sql,
        by=tuple(job.by),
        measures=tuple(Measure(name, kind, column) for name, (kind, column) in job.measure.items()),
        sql=None if job.sql is None else job.sql.strip().removesuffix(";"),
        time_zone=job.time_zone,
    )


def _template(job: JobSection, source: str, graphite: GraphiteSection) -> str:
    """Put prefix, name and tags together; carbon keeps tags in the order of their names."""
    name = f"{graphite.prefix}.{job.name}" if graphite.prefix else job.name
    tags = "".join(f";{key}={value}" for key, value in sorted((graphite.tags | job.tags).items()))
    return (name + tags).replace(f"{{{SOURCE}}}", source)
