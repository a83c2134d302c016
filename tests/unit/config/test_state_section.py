"""The section [state] with a database: its keys, and how the database is reached."""

from pathlib import Path

import psycopg
import pytest

from shipper.config.load import Config, load, load_for_state
from shipper.core.errors import ConfigError, StateBusy
from shipper.runtime.postgresql import Session, connector

SOURCE = '[source.app]\nurl = "sqlite:////var/lib/app.db"'
JOB = '[job.events]\ntable = "events"\nid = "id"\nname = "events.{measure}"\nevery = "1m"'
USER = 'Write user = "NAME" and password = { credential = "NAME" }.'
URL = 'database = "postgresql+psycopg://db1.internal/shipper"'


def write(folder: Path, state: str, source: str = SOURCE) -> str:
    """Write a configuration; return its path."""
    file = folder / "shipper.toml"
    file.write_text(f'[state]\n{state}\n[graphite]\nretentions = "1m:1d"\n{source}\n{JOB}')
    return str(file)


def read(folder: Path, state: str) -> Config:
    """Read a configuration."""
    return load(write(folder, state))


@pytest.mark.parametrize(
    ("state", "message", "remedy"),
    [
        (
            'database = "mysql+pymysql://db1.internal/app"',
            "`database` is not the URL of a PostgreSQL",
            "postgresql+psycopg",
        ),
        ('database = "postgresql+psycopg://db1.internal"', "names no database", "Write it as"),
        ('database = "postgresql+psycopg://a..b,c/app"', '"a..b" is not a host', "graphite.internal"),
        ('database = "postgresql+psycopg://a:x,c/app"', "is not a database url", "Write it as"),
        ('database = "postgresql+psycopg://[::1],c/app"', "several hosts cannot be IPv6", "Write their names"),
        ('database = "postgresql+psycopg://a,b/app?foo=1"', 'unknown option "foo"', "host=DIRECTORY"),
        ('database = "postgresql+psycopg://me:s3cret@a:1,b:2/app"', "database contains a password", USER),
        ('database = "postgresql+psycopg://a:1,b:2/app?password=s3cret"', "database contains a password", USER),
        ('database = "postgresql+psycopg://me:s3cret@db1/app"', "database contains a password", USER),
        ('database = "postgresql+psycopg://me:s3cret@db1,db2/app"', "database contains a password", USER),
        (f'{URL}\npassword = "s3cret"', "the file contains a password", "Write password"),
        (f'{URL}\ntls = "maybe"', "tls", "verify-identity"),
        (f'{URL}\nname = "a.b"', "cannot be part of a metric path", "Use letters"),
        (f'{URL}\nname = "{"n" * 25}"', "name", "at most 24"),
        (f'{URL}\nlease = "2s"', "lease", "greater than or equal to 3"),
        (f'{URL}\nlease = "5s"', "`timeout` is longer than [state] lease", "the lease, 5s"),
        ('lease = "10s"', "lease has no effect without database", "Remove it"),
        ('user = "me"', "user has no effect without database", "Remove it"),
    ],
)
def test_problems(state: str, message: str, remedy: str, tmp_path: Path) -> None:
    """Each problem is named with its remedy, and without a password."""
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, state)

    text = f"{caught.value}\n{caught.value.hint}"
    assert message in text
    assert remedy in text
    assert "s3cret" not in text


@pytest.mark.parametrize(
    ("url", "host", "port", "shown", "verifies"),
    [
        ("db1/app", "db1", None, "postgresql db1/app", "verify-identity"),
        ("db1:5433/app", "db1", 5433, "postgresql db1:5433/app", "verify-identity"),
        ("db1,db2/app", "db1,db2", None, "postgresql db1,db2/app", "verify-identity"),
        ("me@db1:5433,db2:5434/app", "db1,db2", "5433,5434", "postgresql db1,db2/app", "verify-identity"),
        ("db1:5433,db2/app", "db1,db2", "5433,", "postgresql db1,db2/app", "verify-identity"),
        ("localhost,127.0.0.1/app", "localhost,127.0.0.1", None, "postgresql localhost,127.0.0.1/app", "off"),
        ("/app?host=/run/postgresql", "/run/postgresql", None, "postgresql localhost/app", "off"),
    ],
)
def test_hosts(
    url: str, host: str, port: object, shown: str, verifies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One host or several, each with its port, are those of libpq. Mutant: drop the options of the URL."""
    access = read(tmp_path, f'database = "postgresql+psycopg://{url}"').state_access()
    assert access is not None
    given: dict[str, object] = {}

    def connect(**arguments: object) -> None:
        given.update(arguments)
        raise psycopg.OperationalError

    monkeypatch.setattr(Session, "connect", connect)
    with pytest.raises(StateBusy):
        connector(access)("shipper")

    assert (given["host"], given.get("port"), given["dbname"]) == (host, port, "app")
    assert given["target_session_attrs"] == "read-write"
    assert (str(access), access.verifies) == (shown, verifies)


def test_references(tmp_path: Path) -> None:
    """URL, user and password may be references; the password of a URL in one counts, too. Mutant: drop it."""
    (tmp_path / "url").write_text("postgresql+psycopg://me:s3cret@db1,db2:5433/app\n")
    (tmp_path / "password").write_text("other\n")
    hidden = 'database = { file = "url" }'
    config = read(tmp_path, hidden)
    access = config.state_access()
    assert access is not None
    assert (access.url.username, access.url.password) == ("me", "s3cret")
    assert "s3cret" not in f"{access} {config.state}"
    access = read(tmp_path, f'{hidden}\nuser = "you"\npassword = {{ file = "password" }}').state_access()
    assert access is not None
    assert (access.url.username, access.url.password) == ("you", "other")


def test_credentials_are_read_for_a_database_only(tmp_path: Path) -> None:
    """A command that needs the state reads credentials only if it is in a database. Mutants: always; never."""
    source = '[source.app]\nurl = { credential = "missing" }'
    assert load_for_state(write(tmp_path, "", source)).state_access() is None
    with pytest.raises(ConfigError, match="missing"):
        load_for_state(write(tmp_path, URL, source))
