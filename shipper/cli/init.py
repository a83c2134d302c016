"""`shipper init`: asks for a database, a table and its columns, and writes a first configuration.

Strategy: each question offers what the database itself tells. Nothing is written before the last answer, and then the
new file is loaded as any other; `shipper check` finds what is still missing.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from shipper.cli import options
from shipper.cli.output import say
from shipper.core.errors import ConfigError

if TYPE_CHECKING:
    import sqlalchemy as sa

    from shipper.config.load import Config
    from shipper.source.access import Access
    from shipper.source.inspection import Examination

DEFAULT_FOLDER = Path("/etc/shipper")
OPTION_FILE = "mysql.cnf"
PASSWORD_FILE = "database-password"  # noqa: S105 - a name
MOST_SHOWN = 30
HEAD = """\
#:schema ./shipper.schema.json
# Written by `shipper init`. deploy/configure.md has all keys; deploy/two-machines.md, those for two machines.
"""
_DROP_IN = f"[Service]\nLoadCredential={PASSWORD_FILE}:{DEFAULT_FOLDER}/{PASSWORD_FILE}"
RESERVED = {"source", "measure"}  # they mean something else in the name of a series
_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key that needs no quotes
_COMMA = re.compile(r"\s*,\s*")
_TRAILS = re.compile(r"audit|trail|event|log|history|activity", re.IGNORECASE)


class Login(NamedTuple):
    """How to reach the database."""

    url: "sa.URL"
    """Without user and password."""
    user: str | None
    """None for SQLite."""
    password: str


class Chosen(NamedTuple):
    """The name and the keys of the first job."""

    job: str
    table: str
    id: str
    time: str | None
    unit: str | None
    by: list[str]


class Answers(NamedTuple):
    """The answers to all questions."""

    login: Login
    account: str
    """As whom the server knows this user, USER@HOST; may be empty."""
    chosen: Chosen
    granted: list[tuple[str, str]]
    """Schema and table of each GRANT by which this user may read the table."""
    graphite: dict[str, str | int]
    """Keys of [graphite]."""


@click.command(short_help="Write a first configuration: answer questions.")
@options.configured
def init(file: str) -> None:
    """Ask for a database, a table, a job and Graphite; write the configuration and the credentials.

    The table's columns are read, and suitable ones are offered. Print the rights for the database user, and the
    changes for Carbon. An existing file is kept as FILE.old.
    """
    from shipper.config.load import load

    # ask
    try:
        answers = _answers(file)
    except click.Abort:
        say("nothing was written", err=True)
        raise
    login, chosen = answers.login, answers.chosen
    # write
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    for name, text, mode in _credentials(login, Path(file).parent):
        _write(name, text, mode)
    _write(Path(file), _configuration(Path(file), answers.graphite, login, chosen), 0o644)
    _show_next(load(file), answers)
    _show_start(file, has_drop_in=login.url.get_backend_name() == "postgresql")


def _answers(file: str) -> Answers:
    """Ask all questions; after a rejected login, ask for the database again."""
    from shipper.source.access import LoginRefused
    from shipper.source.inspection import Examination

    if Path(file).exists() and not click.confirm(f"{file} exists. Replace it, and keep it as {file}.old?"):
        raise click.Abort
    while True:
        login = _login()
        with closing(Examination("app", _access(login))) as source:
            try:
                session = source.session()
            except LoginRefused as error:
                say(f"Error: {error}. Answer again.")
                continue
            say(f"Connected: {session.server}")
            chosen = _chosen(source)
            return Answers(login, session.account or "", chosen, source.granted(chosen.table), _graphite())


def _access(login: Login) -> "Access":
    """Return how to open connections with a login."""
    from shipper.source.access import Access

    return Access(login.url.set(username=login.user, password=login.password or None), 30)


def _show_next(config: "Config", answers: Answers) -> None:
    """Show what is left to do."""
    from shipper.diagnostics.carbon_conf import rules
    from shipper.source.grants import grants, revokes

    access, host = _access(answers.login), answers.account.rpartition("@")[2]
    label = answers.chosen.by[0] if answers.chosen.by else "COLUMN"
    say(f"\nThe job counts all rows. To count only some, add a line to [job.{answers.chosen.job}], such as")
    say(f'where = {{ {label if _BARE.fullmatch(label) else _toml(label)} = "VALUE" }}')
    if answers.login.user is None:
        say("\nNext:\n\n1. Let the user that shipper runs as read the database's file.")
    else:
        say("\nNext:\n\n1. Let an administrator of the database run:\n")
        queries = [job.query for job in config.jobs.values()]
        for statement in (*revokes(access, answers.granted, host=host), *grants(access, queries, host=host)):
            say(f"   {statement}")
    say(f"\n2. Change Carbon's configuration:\n\n{rules(config)}")


def _show_start(file: str, *, has_drop_in: bool) -> None:
    """Show how to check the configuration, and how to start the service with it."""
    is_installed = Path(file).parent == DEFAULT_FOLDER
    option = "" if is_installed else f" --config {shlex.quote(file)}"
    say(f"3. Run `shipper check{option}` until it shows no ✗.")
    if is_installed and has_drop_in:
        say(f"   The service needs the password, too: run `systemctl edit shipper`, and add:\n\n{_DROP_IN}\n")
    start = "systemctl enable --now shipper" if is_installed else f"shipper run{option}"
    say(f"4. Start the service: `{start}`.")


def _login() -> Login:
    """Ask how to reach the database."""
    from sqlalchemy import make_url

    from shipper.config import values

    question = "Database, as in mysql+pymysql://db1.internal/app or postgresql+psycopg://db1.internal/app"
    url = make_url(click.prompt(question, value_proc=_as_in_the_file(values.url)))
    if url.get_backend_name() == "sqlite":
        return Login(url, None, "")
    user = click.prompt("User", default=url.username or "shipper")
    password = click.prompt("Password", hide_input=True, default=url.password or "", show_default=False)
    return Login(url._replace(username=None, password=None), user, password)  # set() keeps what is None


def _chosen(source: "Examination") -> Chosen:
    """Ask for a table, its columns, and the name of the job."""
    from shipper.config import values

    tables = sorted(source.tables_beside(""), key=lambda name: (_TRAILS.search(name) is None, name))
    if not tables:
        raise ConfigError(
            f"read {source}: this user sees no table",
            hint="Let an administrator GRANT SELECT on the table to this user, and begin again.",
        )
    table = _ask("Table", tables, lambda name: bool(source.table(name).columns))
    found, columns = source.candidates(table), {*source.table(table).columns, "-"}
    times = {time.name: time for time in found.times}
    ids = found.ids or [name for name, time in times.items() if time.is_indexed]
    id_ = _ask("Column with the growing key", ids, (columns - {"-"}).__contains__)
    along = [id_] if id_ in times else []
    time = _ask("Column with the time of the event (-: none)", [*along, *times, "-"], columns.__contains__)
    labels = [name for name in found.labels if name not in {id_, time, *RESERVED}]
    by = _ask("Columns that group the rows, with commas between (-: none)", [*labels, "-"], columns.__contains__)
    unit = times[time].unit if time in times else None
    # the job
    name = re.sub(r"[^a-z0-9]+", "_", table.lower()).strip("_") or "rows"
    name = click.prompt("Name of the job", default=name, value_proc=_as_in_the_file(values.node))
    return Chosen(name, table, id_, None if time == "-" else time, unit, [] if by == "-" else _COMMA.split(by))


def _ask(question: str, offered: Sequence[str], is_there: Callable[[str], bool]) -> str:
    """Ask for a name, or several with commas, until all are there; the first one that is offered is the default.

    None is offered that a terminal would obey.
    """
    from shipper.config.problems import suggest

    def convert(answer: str) -> str:
        for name in _COMMA.split(answer):
            if not is_there(name):
                raise click.UsageError(f'"{name}" does not exist. {suggest(name, offered)}')
        return answer

    offered = [name for name in offered if name.isprintable()]
    if len(offered) > 1:
        more = ", ..." if len(offered) > MOST_SHOWN else ""
        say(f"  found: {', '.join(offered[:MOST_SHOWN])}{more}")
    answer: str = click.prompt(question, default=offered[0] if offered else None, value_proc=convert)
    return answer


def _graphite() -> dict[str, str | int]:
    """Ask for Carbon, graphite-web and the prefix, and return the keys of [graphite]."""
    from shipper.config import values

    line_receiver = "Carbon, HOST:PORT of its line receiver"
    host, port = click.prompt(line_receiver, default="127.0.0.1:2003", value_proc=_as_in_the_file(values.address))
    question = "Address of graphite-web, to read values back (empty: none)"
    convert = _as_in_the_file(lambda text: text and values.render_url(text))
    render_url = click.prompt(question, default="", show_default=False, value_proc=convert)
    prefix = click.prompt("Prefix of the series", default="audit", value_proc=_as_in_the_file(values.prefix))
    return {"host": host, "port": port, **({"render_url": render_url} if render_url else {}), "prefix": prefix}


def _as_in_the_file(accept: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the conversion of an answer by the validator of a key; if it rejects the answer, click asks again."""
    from pydantic_core import PydanticCustomError

    def convert(answer: str) -> Any:
        try:
            return accept(answer)
        except PydanticCustomError as error:
            raise click.UsageError(f"{error.message()}. {(error.context or {})['remedy']}") from error

    return convert


def _credentials(login: Login, folder: Path) -> Iterator[tuple[Path, str, int]]:
    """Yield the files with user and password, and their modes."""
    if login.user is None:
        return
    if login.url.get_backend_name() == "postgresql":
        yield folder / PASSWORD_FILE, f"{login.password}\n", 0o600
    else:
        yield folder / OPTION_FILE, f"[client]\nuser = {login.user}\npassword = {login.password}\n", 0o600


def _configuration(file: Path, graphite: Mapping[str, str | int], login: Login, chosen: Chosen) -> str:
    """Return the text of the configuration."""
    path = ".".join([chosen.job, *(f"{{{column}}}" for column in chosen.by), "{measure}"])
    source: dict[str, Any] = {"url": login.url.render_as_string()}
    if login.url.get_backend_name() == "postgresql":
        source |= {"user": login.user, "password": {"credential": PASSWORD_FILE}}
    elif login.user is not None:
        source["credentials"] = OPTION_FILE
    job = {
        "table": chosen.table,
        "id": chosen.id,
        "time": chosen.time,
        "time_unit": chosen.unit,
        "by": chosen.by or None,
    }
    sections: dict[str, dict[str, Any]] = {
        "state": {"path": None if file.parent == DEFAULT_FOLDER else f"{file.parent.absolute()}/shipper.db"},
        "graphite": {**graphite, "retentions": "1m:30d,1h:5y"},
        "source.app": source,
        f"job.{chosen.job}": {**job, "name": path, "every": "1m", "bucket": "1m"},
    }
    parts = [f"[{title}]\n{''.join(_lines(keys))}" for title, keys in sections.items()]
    return "\n".join([HEAD, *parts])


def _lines(keys: Mapping[str, Any]) -> Iterator[str]:
    for key, value in keys.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{name} = {_toml(one)}" for name, one in value.items())
            yield f"{key} = {{ {inner} }}\n"
        elif value is not None:
            yield f"{key} = {_toml(value)}\n"


def _toml(value: str | int | list[str]) -> str:
    """Write a value: JSON's texts, numbers and lists are TOML's, too."""
    return json.dumps(value, ensure_ascii=False)


def _write(path: Path, text: str, mode: int) -> None:
    """Create a file; one that exists is kept as FILE.old."""
    try:
        if path.exists():
            path.replace(f"{path}.old")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as opened:
            opened.write(text)
    except OSError as error:
        raise ConfigError(
            f"write {path}: {error.strerror}", hint="Run it as root, or name another file with --config."
        ) from error
    say(f"written: {path}")
