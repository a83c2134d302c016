"""`shipper init`: asks for a database, a table and its columns, and writes a first configuration.

Strategy: each question offers what the database itself tells. Nothing is written before the last answer, and then the
new file is loaded as any other; `shipper check` finds what is still missing.
"""

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from shipper.cli import options
from shipper.cli.output import say
from shipper.core.errors import ConfigError, ReadbackFailed, ShipperError, os_errors

if TYPE_CHECKING:
    from shipper.config.load import Config
    from shipper.source.access import Access
    from shipper.source.inspection import Examination

DEFAULT_FOLDER = Path("/etc/shipper")
OPTION_FILE = "mysql.cnf"
PASSWORD_FILE = "database-password"  # noqa: S105 - a name
MOST_SHOWN = 30
SECONDS = 2.0  # for a graphite-web to answer
SCHEMA = "shipper.schema.json"
HEAD = """\
# Written by `shipper init`. deploy/configure.md has all keys; deploy/two-machines.md, those for two machines.
"""
_DROP_IN = f"[Service]\nLoadCredential={PASSWORD_FILE}:{DEFAULT_FOLDER}/{PASSWORD_FILE}"
RESERVED = {"source", "measure"}  # they mean something else in the name of a series
_BARE = re.compile(r"[A-Za-z0-9_-]+")  # a key that needs no quotes
_COMMA = re.compile(r"\s*,\s*")
_TRAILS = re.compile(r"audit|trail|event|log|history|activity", re.IGNORECASE)


@options.command("Write a first configuration: answer questions.")
def init(file: str) -> None:
    """Ask for a database, a table, a job and Graphite; write the configuration and the credentials.

    It reads the table's columns, offers suitable ones, and prints the grants and the changes for Carbon. An existing
    file is kept as FILE.old.
    """
    from shipper.config.load import load

    # ask
    path = Path(file)
    try:
        with _writing(path):
            exists = path.exists()
        if exists:
            click.confirm(f"{file} exists. Replace it, and keep it as {file}.old?", abort=True)
        source = _connected()
        with closing(source):
            name, job = _job(source)
            account, granted = source.session().account or "", source.granted(job["table"])
            graphite = _graphite()
    except click.Abort:
        say("nothing was written", err=True)
        raise
    # write
    access = source.access
    if access.kind == "postgresql":
        _write(path.parent / PASSWORD_FILE, f"{access.url.password or ''}\n", 0o600)
    elif access.kind != "sqlite":
        login = f"user = {access.url.username}\npassword = {access.url.password or ''}\n"
        _write(path.parent / OPTION_FILE, f"[client]\n{login}", 0o600)
    _write(path, _configuration(path, graphite, access, name, job), 0o644)
    _show_next(load(file), name, access, granted, account.rpartition("@")[2])
    _show_start(file, is_read="render_url" in graphite, has_drop_in=access.kind == "postgresql")


def _connected() -> "Examination":
    """Ask for the database until it can be used; offer the last answers."""
    from shipper.source.dialects.dialect import CHECK_LOGIN
    from shipper.source.inspection import Examination

    access = None
    while True:
        access = _access(access)
        with ExitStack() as opened:
            try:
                source = opened.enter_context(closing(Examination("app", access)))
                say(f"Connected: {source.session().server}")
            except ShipperError as error:
                hint = (error.hint or "").replace(CHECK_LOGIN, "Check user and password.")  # no service runs yet
                say("\n    ".join(filter(None, (f"Error: {error}. Answer again.", hint))))
            else:
                opened.pop_all()
                return source


def _show_next(config: "Config", name: str, access: "Access", granted: Sequence[tuple[str, str]], host: str) -> None:
    """Show what is left to do; granted are schema and table of each GRANT by which this user may read the table."""
    from shipper.diagnostics.carbon_conf import rules
    from shipper.source.tables.grants import grants, revokes

    label = next(iter(config.jobs[name].query.by), "COLUMN")
    say("\nThe job counts all rows from now on. To count those that are in the table already,")
    say(f'add `start = "beginning"` to [job.{name}] before the first start.')
    say(f"To count only some rows, add a line to [job.{name}], such as")
    say(f'where = {{ {label if _BARE.fullmatch(label) else _toml(label)} = "VALUE" }}')
    if access.kind == "sqlite":
        say("\nNext:\n\n1. Let the service's user read the database file.")
    else:
        say("\nNext:\n\n1. Let an administrator of the database run:\n")
        queries = [job.query for job in config.jobs.values()]
        for statement in (*revokes(access, granted, host=host), *grants(access, queries, host=host)):
            say(f"   {statement}")
    say(f"\n2. Change Carbon's configuration:\n\n{rules(config)}")


def _show_start(file: str, *, is_read: bool, has_drop_in: bool) -> None:
    """Show how to check the configuration, and how to start the service with it."""
    is_installed = Path(file).parent == DEFAULT_FOLDER
    option = "" if is_installed else f" --config {shlex.quote(file)}"
    say(f"3. Run `shipper check{' --canary' if is_read else ''}{option}` until it shows no ✗.")
    if is_installed and has_drop_in:
        say(f"   The service needs the password, too: run `systemctl edit shipper`, and add:\n\n{_DROP_IN}\n")
    start = "systemctl enable --now shipper" if is_installed else f"shipper run{option}"
    say(f"4. Start the service: `{start}`.")


def _access(last: "Access | None") -> "Access":
    """Ask how to reach the database, and offer the last answers."""
    from sqlalchemy import make_url

    from shipper.config import values
    from shipper.source.access import Access

    question = "Database, as in mysql+pymysql://db1.internal/app or postgresql+psycopg://db1.internal/app"
    default = last and _address(last)
    url = make_url(click.prompt(question, default=default, value_proc=_as_in_the_file(values.url)))
    if url.get_backend_name() == "sqlite":
        return Access(url, 30)
    user = click.prompt("User", default=url.username or (last and last.url.username) or "shipper")
    known = url.password or (last and last.url.password) or ""
    password = click.prompt("Password", hide_input=True, default=known, show_default=False)
    return _with_tls(Access(url.set(username=user, password=password or None), 30))


def _address(access: "Access") -> str:
    """Return the URL without user and password."""
    return access.url._replace(username=None, password=None).render_as_string()  # set() keeps what is None


def _with_tls(access: "Access") -> "Access":
    """Ask how to verify the server, if its host is not loopback."""
    from shipper.source.access import Tls

    default = access.verifies
    if default == "off":
        return access
    choices: click.Choice[Tls] = click.Choice(get_args(Tls))
    tls = click.prompt("Verify the server by TLS (off: only in a trusted network)", type=choices, default=default)
    question = "CA file of the server (-: the system's CAs)"
    file = "-" if tls == "off" else click.prompt(question, default="-")
    return access._replace(tls=None if tls == default else tls, tls_ca=None if file == "-" else file)


def _job(source: "Examination") -> tuple[str, dict[str, Any]]:
    """Ask for a table, its columns, and the name of the job; return the name, and the job's keys."""
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
    ids = found.ids or [*(name for name, time in times.items() if time.is_indexed), *found.others]
    id_ = _ask("Column with the growing key", ids, (columns - {"-"}).__contains__)
    along = [id_] if id_ in times else []
    time = _ask("Column with the time of the event (-: none)", [*along, *times, "-"], columns.__contains__)
    labels = [name for name in found.labels if name not in {id_, time, *RESERVED}]
    answer = _ask("Columns that group the rows, with commas between (-: none)", [*labels, "-"], columns.__contains__)
    unit = times[time].unit if time in times else None
    # the job
    name = re.sub(r"[^a-z0-9]+", "_", table.lower()).strip("_") or "rows"
    name = click.prompt("Name of the job", default=name, value_proc=_as_in_the_file(values.node))
    by = [] if answer == "-" else _COMMA.split(answer)
    path = ".".join([name, *(f"{{{column}}}" for column in by), "{measure}"])
    keys = {"table": table, "id": id_, "time": None if time == "-" else time, "time_unit": unit, "by": by or None}
    return name, {**keys, "name": path, "every": "1m", "bucket": "1m"}


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
    question = "Address of graphite-web, to read values back (-: none)"
    convert = _as_in_the_file(lambda text: text if text == "-" else values.render_url(text))
    render_url = click.prompt(question, default=_graphite_web(host), value_proc=convert)
    prefix = click.prompt("Prefix of the series", default="audit", value_proc=_as_in_the_file(values.prefix))
    return {"host": host, "port": port, **({} if render_url == "-" else {"render_url": render_url}), "prefix": prefix}


def _graphite_web(host: str) -> str:
    """Return the address of the graphite-web on Carbon's host, - if none answers there."""
    from shipper.graphite.render_api import Readback

    url = f"http://[{host}]" if host.count(":") > 1 else f"http://{host}"
    try:
        Readback(url, timeout=SECONDS).ask()
    except ReadbackFailed:
        return "-"
    return url


def _as_in_the_file(accept: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return the conversion of an answer by the validator of a key; if it rejects the answer, click asks again."""
    from pydantic_core import PydanticCustomError

    def convert(answer: str) -> Any:
        try:
            return accept(answer)
        except PydanticCustomError as error:
            raise click.UsageError(f"{error.message()}. {(error.context or {})['remedy']}") from error

    return convert


def _configuration(
    file: Path, graphite: Mapping[str, str | int], access: "Access", name: str, job: Mapping[str, Any]
) -> str:
    """Return the text of the configuration."""
    source: dict[str, Any] = {"url": _address(access), "tls": access.tls, "tls_ca": access.tls_ca}
    if access.kind == "postgresql":
        source |= {"user": access.url.username, "password": {"credential": PASSWORD_FILE}}
    elif access.kind != "sqlite":
        source["credentials"] = OPTION_FILE
    sections: dict[str, Mapping[str, Any]] = {
        "state": {"path": None if file.parent == DEFAULT_FOLDER else f"{file.parent.absolute()}/shipper.db"},
        "graphite": {**graphite, "retentions": "1m:30d,1h:5y"},
        "source.app": source,
        f"job.{name}": job,
    }
    text = f"#:schema ./{SCHEMA}\n{HEAD}" if (file.parent / SCHEMA).exists() else HEAD  # an editor reads that file
    for title, keys in sections.items():
        lines = [f"{key} = {_toml(value)}\n" for key, value in keys.items() if value is not None]
        text += f"\n[{title}]\n{''.join(lines)}"
    return text


def _toml(value: Any) -> str:
    """Write a value: JSON's texts, numbers and lists are TOML's, too."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(one)}' for key, one in value.items())} }}"
    return json.dumps(value, ensure_ascii=False)


def _writing(path: Path) -> AbstractContextManager[None]:
    """Translate errors of files that this user may not write."""
    return os_errors(f"write {path}", "Run it as root, or name another file with --config.")


def _write(path: Path, text: str, mode: int) -> None:
    """Create a file; one that exists is kept as FILE.old."""
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.replace(f"{path}.old")
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "w") as opened:
            opened.write(text)
    say(f"written: {path}")
