"""TOML to a frozen Config, or every problem at once with its line and a remedy.

Three stages: the files become one table with its references resolved; keys.py checks each value by itself; rules.py
checks which values fit together.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy.engine import URL, make_url

from shipper.config import encrypted
from shipper.config.collisions import shared_nodes
from shipper.config.files import UnreadableError, is_exposed, read_text
from shipper.config.jobs import jobs_of, paths_of
from shipper.config.keys import (
    AuditSection,
    File,
    GraphiteSection,
    JobSection,
    SourceSection,
    StateSection,
    StatusSection,
)
from shipper.config.problems import MOST_DEPTH, Document, Place, Problem, explained, not_toml, report, too_deep
from shipper.config.references import KINDS, References, option_file
from shipper.config.rules import related
from shipper.config.values import with_ports_apart
from shipper.core.errors import ConfigError
from shipper.core.model import Job
from shipper.source.access import Access

DEFAULT_PATH = "/etc/shipper/shipper.toml"

_ALTERNATIVES = ({"every", "cron"}, {"time", "time_sql"})
_DRIVERS = {"mysql": "mysql+pymysql", "mariadb": "mariadb+pymysql", "postgresql": "postgresql+psycopg"}


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration."""

    file: str
    state: StateSection
    graphite: GraphiteSection
    status: StatusSection
    audit: AuditSection
    sources: Mapping[str, SourceSection]
    jobs: Mapping[str, Job]
    secret_files: tuple[str, ...]
    """Files with passwords to which references led."""
    digest: str
    """Digest of the files that it was read from."""

    def named(self, name: str) -> list[Job]:
        """Return the job of a name; of one that is configured on several sources, the job of each.

        Raises:
            ConfigError: no job has this name.
        """
        jobs = [job for job in self.jobs.values() if name in {job.name, job.name.partition("@")[0]}]
        if not jobs:
            hint = f"The jobs are: {', '.join(self.jobs)}."
            raise ConfigError(f"choose jobs: no job {name!r} in {self.file}", hint=hint)
        return jobs

    def credential_files(self) -> set[str]:
        """Return the files with passwords that this user can read."""
        files = set(self.secret_files)
        for name, section in self.sources.items():
            with suppress(ConfigError):  # who connects reports it
                files |= (
                    {option_file(section.credentials, name, Path(self.file).parent)} if section.credentials else set()
                )
        return files

    def exposed_files(self) -> list[str]:
        """Return the files with passwords that all users of this machine can read."""
        return sorted(filter(is_exposed, self.credential_files()))

    def access(self, name: str) -> Access:
        """Return how to connect to a source.

        Raises:
            ConfigError: its credentials cannot be read.
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
            server_public_key=section.server_public_key,
        )

    def state_access(self) -> Access | None:
        """Return how to connect to the database that keeps the state; None without one."""
        state = self.state
        if state.database is None:
            return None
        url = make_url(state.database)
        url = url.set(username=state.user or url.username, password=state.password or url.password)
        return Access(url, state.lease, None, state.tls, state.tls_ca)


def load(file: str, *, with_credentials: bool = True) -> Config:
    """Read a configuration, and the files of conf.d beside it; a command that connects nowhere needs no credentials.

    Raises:
        ConfigError: with a line `FILE:LINE: PROBLEM` and a remedy for every problem.
    """
    # one table of all files
    documents = [_read(path) for path in _files(file)]
    references = References(Path(file).parent, with_credentials=with_credentials)
    raw, problems, secrets = references.resolved(_joined(documents)), references.problems, references.secrets
    problems += [*_job_files(documents), *_passwords(documents[0]), *_default_problems(raw), *_nul_problems(raw, ())]
    # each value by itself; a problem that is known already is not reported twice
    try:
        parsed = File.model_validate(_with_defaults(raw))
    except ValidationError as error:
        places = {problem.place for problem in problems}
        problems += [explained(detail, detail["loc"]) for detail in error.errors() if detail["loc"] not in places]
        raise report(documents, problems, secrets) from None
    # values together
    by_section = {name: jobs_of(name, job, parsed) for name, job in parsed.job.items()}
    templates = [(name, path) for name, jobs in by_section.items() for job in jobs for path in paths_of(job)]
    problems += related(parsed, templates)
    problems += shared_nodes((name, job.name) for name, jobs in by_section.items() for job in jobs)
    if problems:
        raise report(documents, problems, secrets)
    encrypted.prepare(source.credentials for source in parsed.source.values() if source.credentials)
    jobs = {job.name: job for jobs in by_section.values() for job in jobs}
    files = tuple(references.secret_files)
    digest = _digest((document.file, document.text) for document in documents)
    sections = (parsed.state, parsed.graphite, parsed.status, parsed.audit, parsed.source)
    return Config(file, *sections, jobs, files, digest)


def load_for_state(file: str) -> Config:
    """Read a configuration, for a command that connects nowhere but to the database that keeps the state.

    Raises:
        ConfigError: as for `load`; credentials are needed only with such a database.
    """
    config = load(file, with_credentials=False)
    return config if config.state.database is None else load(file)


def state_of(file: str) -> str | None:
    """Return the path of the state; None if [state] is invalid. Errors in other sections are ignored.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    raw = References(Path(file).parent, with_credentials=False).resolved(_read(file).raw)
    try:
        return str(StateSection.model_validate(raw.get("state", {})).path)
    except ValidationError:
        return None


def digest_of(file: str) -> str:
    """Return the digest that a configuration would have if it were loaded now; empty if it cannot be read."""
    try:
        return _digest((path, read_text(path)) for path in _files(file))
    except UnreadableError:
        return ""


def _files(file: str) -> list[str]:
    return [file, *sorted(map(str, Path(file).parent.glob("conf.d/*.toml")))]


def _digest(texts: Iterable[tuple[str, str]]) -> str:
    return sha256(repr(list(texts)).encode(errors="backslashreplace")).hexdigest()


def _read(file: str) -> Document:
    try:
        text = read_text(file)
    except UnreadableError as error:
        hint = "Make it UTF-8 text of at most 4 MB, or name another file with --config FILE."
        if isinstance(error.__cause__, FileNotFoundError):
            hint = "Name it with --config FILE, or write one with `shipper init`."
        raise ConfigError(f"read configuration {file}: {error}", hint=error.remedy or hint) from error
    try:
        document = Document(file, text, tomllib.loads(text))
    except RecursionError:
        raise too_deep(file, text) from None
    except ValueError as error:  # also for a number with thousands of digits
        raise not_toml(file, text, error) from error
    if document.depth > MOST_DEPTH:
        raise too_deep(file, text)
    return document


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
    """Reject sections of further files that are no jobs, and jobs that two files define."""
    owner: dict[str, Document] = {}
    main = documents[0]
    for document in documents:
        if document is not main:
            for key in document.raw.keys() - {"job"}:
                remedy = f"Move it to {main.file}: further files contain jobs only."
                yield Problem((key,), f'"{key}" is not a job', remedy, document.file)
        jobs = document.raw.get("job", {})
        if document is not main and not isinstance(jobs, dict):
            yield Problem(("job",), "job is not a section", "Write [job.NAME].", document.file)
        for name in jobs if isinstance(jobs, dict) else ():
            if name in owner:
                message = f'job "{name}" is defined in {owner[name].file} and in {document.file}'
                yield Problem(("job", name), message, "Rename or remove one of them.", document.file)
            owner.setdefault(name, document)


def _passwords(main: Document) -> Iterator[Problem]:
    """Reject passwords in the file itself: a reference keeps them out of it."""
    sources = main.raw.get("source")
    sections = [(("source", name), source) for name, source in sources.items()] if isinstance(sources, dict) else []
    for place, section in [(("state",), main.raw.get("state")), *sections]:
        if not isinstance(section, dict):
            continue
        password = section.get("password")
        if password is not None and not (isinstance(password, dict) and password.keys() <= set(KINDS)):
            remedy = 'Write password = { credential = "NAME" }, { file = "PATH" } or { env = "NAME" }.'
            yield Problem((*place, "password"), "the file contains a password", remedy)
        key = "url" if place[0] == "source" else "database"
        url = section.get(key)
        if isinstance(url, str) and _may_hold_password(url):
            keys = 'user = "NAME" and password = { credential = "NAME" }.'
            remedy = f"Write {keys}"
            if key == "url":
                file = 'a MySQL option file ([client]), and name it with `credentials = "FILE"`'
                remedy = f"Put user and password into {file}; or write {keys}"
            yield Problem((*place, key), f"{key} contains a password", remedy)


def _nul_problems(value: object, place: Place) -> Iterator[Problem]:
    """Reject NUL characters: databases, files and sockets would each fail in another way."""
    match value:
        case str() if "\0" in value:
            yield Problem(place, f'"{place[-1]}" contains a NUL character', "Remove it.")
        case dict():
            for key, inner in value.items():
                yield from _nul_problems(inner, (*place, key))
        case list():
            for inner in value:
                yield from _nul_problems(inner, place)


def _may_hold_password(url: str) -> bool:
    try:
        parsed = make_url(with_ports_apart(url))
    except Exception:  # noqa: BLE001 - the section reports all that is wrong with it
        return False
    return parsed.password is not None or "password" in parsed.query


def _with_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Give each job the keys of [defaults] that it does not have."""
    defaults, jobs = raw.get("defaults", {}), raw.get("job")
    if not isinstance(defaults, dict) or not isinstance(jobs, dict):
        return raw
    merged = {name: _over(defaults, job) if isinstance(job, dict) else job for name, job in jobs.items()}
    return raw | {"job": merged}


def _over(defaults: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Put a job over the defaults; one of two alternatives, as `every` or `cron`, replaces both."""
    replaced = set[str]().union(*(keys for keys in _ALTERNATIVES if job.keys() & keys))
    return {key: value for key, value in defaults.items() if key not in replaced} | job


def _default_problems(raw: dict[str, Any]) -> list[Problem]:
    """Check [defaults] by itself: jobs that override a key would hide a problem in it."""
    defaults = raw.get("defaults")
    if not isinstance(defaults, dict):
        return []
    try:
        JobSection.model_validate({"table": "any", "id": "any", "name": "any"} | defaults)
    except ValidationError as error:
        return [explained(detail, ("defaults", *detail["loc"])) for detail in error.errors()]
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
