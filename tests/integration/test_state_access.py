"""The way to the PostgreSQL that keeps the state: what `check` finds, and errors with their remedies."""

import errno
import os
import re
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest
import sqlalchemy as sa
from harness import wait_for
from pooler import PgBouncer
from servers import PostgreSQL, free_port
from two_machines import HOST, Machine

from shipper.core.errors import StateBusy
from shipper.runtime.postgresql import connector
from shipper.source.access import Access

PASSWORD = "s3cret-of-the-state"


def findings(one: Machine) -> str:
    """Return what a check finds about the state."""
    shown = one.call("check").stdout
    lines = re.findall(r"^. state.*\n(?:    .*\n)*", shown, re.MULTILINE)
    return "".join(lines)


def test_check(first: Machine, second: Machine, states: PostgreSQL) -> None:
    """A check says how quickly the database answers, who leads, and whether the configuration is the same."""
    database = f"state postgresql 127.0.0.1:{states.port}/states: answers in"
    assert re.search(rf"✓ {database} [0-9.]+ ms; no machine has led yet\n", findings(first))
    assert "✓ state " + str(first.folder / "shipper.db: its working copy can be written") in findings(first)
    first.start()

    assert re.search(
        rf"! {database} .* ms; {HOST} \(this machine\) leads, with a configuration that differs .*\n    Run `sys",
        findings(second),
    )
    assert re.search(rf"✓ {database} .* ms; {HOST} \(this machine\) leads, with the same", findings(first))
    assert second.call("check").returncode == 0
    first.stop()

    assert re.search(rf"! {database} .* ms; no machine leads\n    Start the service", findings(second))
    assert second.call("check").returncode == 0


def test_check_without_the_synchronous_replica(first: Machine) -> None:
    """A server whose synchronous replica is gone can keep no state: a user without rights finds that, too.

    Mutants: believe the setting; believe a commit whose wait was cancelled.
    """
    with closing(PostgreSQL()) as states:
        states.make_database("states")
        text = first.config.read_text()
        first.config.write_text(re.sub("root@127.0.0.1:[0-9]+/states", f"limited@127.0.0.1:{states.port}/states", text))
        with closing(states.connect("states")) as administrator:
            administrator.execute("CREATE ROLE limited LOGIN; GRANT CREATE ON DATABASE states TO limited")
            administrator.execute("ALTER SYSTEM SET synchronous_standby_names = 'gone'")
            assert findings(first).count("✗") == 0
            administrator.execute("SELECT pg_reload_conf()")
            missing = "no synchronous replica confirms a commit"
            wait_for(lambda: missing in findings(first), "commits wait", seconds=30)
            found = findings(first)
            assert "✗ state postgresql" in found
            assert "synchronous_standby_names is gone\n    Start the replica" in found
            assert first.call("check").returncode == 1
            administrator.execute("ALTER SYSTEM RESET synchronous_standby_names")
            administrator.execute("SELECT pg_reload_conf()")  # else the end of the server would wait


def test_check_with_a_job_without_time(first: Machine) -> None:
    """A job that could count rows twice after a fail-over is named. Mutant: name all jobs."""
    first.configure(
        "[job.events]", '[job.timeless]\ntable = "audit_trail"\nid = "id"\nname = "x.{measure}"\n[job.events]'
    )

    found = findings(first)
    assert "synchronous_standby_names is empty" in found
    assert "may count rows twice: timeless\n    Set it" in found
    assert first.call("check").returncode == 0


def test_rights(first: Machine, states: PostgreSQL) -> None:
    """A user without rights gets the grants to paste, in a check and where a state is opened; they are enough."""
    with role(states, "limited"):
        first.configure(f"root@127.0.0.1:{states.port}/states", f"limited@127.0.0.1:{states.port}/states")
        for message in ("permission denied for database states", "permission denied for schema"):
            refused = first.call("once")
            assert (refused.returncode, message in refused.stderr) == (1, True), refused.stderr
            found = findings(first)
            assert "user limited lacks rights" in found
            assert "ms; who leads is not known" in found
            grants = re.findall(r"GRANT .*?;", found)
            assert set(grants) <= set(re.findall(r"GRANT .*?;", refused.stderr))
            with states.connect("states") as connection:
                for grant in grants:
                    connection.execute(grant.encode())
                assert first.call("once").returncode == 0
                assert "lacks rights" not in findings(first)
                connection.execute("REVOKE CREATE ON DATABASE states FROM limited")
                connection.execute("REASSIGN OWNED BY limited TO root")  # as if another user had made all


def test_wrong_password(first: Machine, states: PostgreSQL) -> None:
    """A login that fails is named with its remedy, and no password is in any message."""
    rules = states._root / "data/pg_hba.conf"
    before = rules.read_text()
    (first.folder / "password").write_text(f"{PASSWORD}\n")
    first.configure(f"root@127.0.0.1:{states.port}/states", f"limited@127.0.0.1:{states.port}/states")
    first.configure('lease = "5s"', 'lease = "5s"\npassword = { file = "password" }')
    with role(states, "limited", PASSWORD[1:]), states.connect("postgres") as connection:
        rules.write_text(f"host all limited 127.0.0.1/32 scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
        try:
            for command in ("once", "status", "check", "history events", "backup COPY"):
                refused = first.call(command.replace("COPY", str(first.folder / "copy.db")))
                text = refused.stdout + refused.stderr
                assert "password authentication failed" in text
                assert "`password` of [state]" in text
                assert PASSWORD not in text
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")


def test_login_that_is_not_allowed(first: Machine, states: PostgreSQL) -> None:
    """A login without an entry, a right or LOGIN has its remedy. Mutant: look for role and database first."""
    rules = states._root / "data/pg_hba.conf"
    before = rules.read_text()
    first.configure(f"root@127.0.0.1:{states.port}/states", f"limited@127.0.0.1:{states.port}/states")
    with role(states, "limited"), states.connect("postgres") as connection:
        try:
            for statement, entries, message, hint in (
                ("SELECT 1", "host states root 127.0.0.1/32 trust\n", "no pg_hba.conf entry", "Allow host, user and"),
                ("REVOKE CONNECT ON DATABASE states FROM public", before, "permission denied for", "GRANT CONNECT"),
                ("ALTER ROLE limited NOLOGIN", before, "not permitted to log in", "ALTER ROLE ... LOGIN"),
            ):
                connection.execute(statement.encode())
                rules.write_text(entries)
                connection.execute("SELECT pg_reload_conf()")
                wait_for(lambda message=message: message in first.call("once").stderr, message)  # type: ignore[misc]
                assert hint in first.call("once").stderr
        finally:
            rules.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("GRANT CONNECT ON DATABASE states TO public")


@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        (("/states", "/nowhere"), 'database "nowhere" does not exist', "Make that database"),
        (("root@127", "nobody_known@127"), 'role "nobody_known" does not exist', "`user` of [state]"),
        (('lease = "5s"', 'lease = "5s"\ntls = "verify-identity"'), "does not support SSL", "`tls` of [state]"),
        (("PORT/states", "1/states"), "Connection refused", "Check that PostgreSQL runs"),
    ],
)
def test_unreachable(change: tuple[str, str], message: str, hint: str, first: Machine, states: PostgreSQL) -> None:
    """A database that cannot be reached is a line and a remedy, wherever the state is needed."""
    old, new = change
    url = f"root@127.0.0.1:{states.port}/states"
    text = first.config.read_text()
    state = text[: text.index("[graphite]")]
    first.config.write_text(text.replace(state, state.replace(old.replace("PORT", str(states.port)), new)))
    assert url not in first.config.read_text() or "tls" in new
    for command in ("once", "status", "check", "history events", "pause events", "reconcile"):
        refused = first.call(command)
        output = refused.stdout + refused.stderr
        assert refused.returncode not in {0, 2}, command
        if command == "reconcile":
            continue  # without a render_url it needs no state
        assert message in output, (command, output)
        assert hint in output, (command, output)
        assert "Traceback" not in output


@pytest.mark.parametrize("limited", ["ROLE limited", "DATABASE states"])
def test_connection_limit(limited: str, first: Machine, states: PostgreSQL) -> None:
    """A limit of connections is named as such. Mutant: look for the words of a missing role or database first."""
    first.configure(f"root@127.0.0.1:{states.port}/states", f"limited@127.0.0.1:{states.port}/states")
    with role(states, "limited"), states.connect("postgres") as connection:
        connection.execute(f"ALTER {limited} CONNECTION LIMIT 0".encode())
        refused = first.call("once")

    assert "too many connections for" in refused.stderr
    assert "CONNECTION LIMIT" in refused.stderr


def test_locked(first: Machine, states: PostgreSQL) -> None:
    """A command does not wait for a lock on the state for as long as for its rows. Mutant: set no `lock_timeout`."""
    assert first.call("once").returncode == 0
    with states.connect("states") as connection, connection.transaction():
        connection.execute("LOCK TABLE shipper.state")
        status = first.call("status")

    assert "canceling statement due to lock timeout" in status.stdout
    assert "Look in pg_stat_activity" in status.stdout


def test_lease_lost_by_its_table(first: Machine, states: PostgreSQL) -> None:
    """Rows whose table `lease` was made again are neither replaced nor taken for no state. Mutant: copy no rows."""
    assert first.call("once").returncode == 0
    with states.connect("states") as connection:
        connection.execute("DROP TABLE shipper.lease")
    for command in ("once", "backup COPY", "history events"):
        refused = first.call(command.replace("COPY", str(first.folder / "copy.db")))
        assert (command, refused.returncode) == (command, 1)
        assert "restore the state from a backup" in refused.stderr


def test_read_only(first: Machine, states: PostgreSQL) -> None:
    """A server that takes no writes is not used. Mutant: use any server."""
    with states.connect("postgres") as connection:
        connection.execute("ALTER DATABASE states SET default_transaction_read_only = on")
    refused = first.call("once")

    assert (refused.returncode, "session is read-only" in refused.stderr) == (1, True)
    assert "Name the server that takes writes" in refused.stderr


def test_several_hosts(first: Machine, states: PostgreSQL) -> None:
    """Of several hosts the one that takes writes is used. Mutants: use the first one that answers, or the first one."""
    url = f"127.0.0.1:{states.port}/states"
    with closing(PostgreSQL()) as other:
        other.make_database("states")
        with other.connect("postgres") as connection:
            connection.execute("ALTER DATABASE states SET default_transaction_read_only = on")
        first.configure(url, f"127.0.0.1:{free_port()},127.0.0.1:{other.port},{url}")

        assert first.call("once").returncode == 0
        assert "no machine leads" in findings(first)


def test_encoding(first: Machine, states: PostgreSQL) -> None:
    """A database that cannot store all characters is refused. Mutant: find that when the first one comes."""
    with states.connect("postgres") as connection:
        connection.execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        first.configure(f"{states.port}/states", f"{states.port}/latin")
        for command in ("once", "check"):
            refused = first.call(command)
            output = refused.stdout + refused.stderr
            assert (command, refused.returncode != 0) == (command, True)
            assert "its encoding is LATIN1" in output
            assert "ENCODING UTF8" in output
    finally:
        with states.connect("postgres") as connection:
            connection.execute("DROP DATABASE latin WITH (FORCE)")


def test_pooler(first: Machine, states: PostgreSQL) -> None:
    """A pooler of transactions is refused: a lock of a session would be another client's."""
    with closing(PgBouncer(states, "transaction", sessions=2)) as pooler:
        first.configure(f"127.0.0.1:{states.port}/states", f"127.0.0.1:{pooler.port}/states")
        for command in ("once", "check"):
            refused = first.call(command)
            assert refused.returncode == 1
            assert "[state] database names a pooler" in refused.stdout + refused.stderr


@contextmanager
def role(states: PostgreSQL, name: str, password: str = "") -> Iterator[None]:
    """Let a role exist."""
    with states.connect("states") as connection:
        connection.execute(f"DROP ROLE IF EXISTS {name}".encode())
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password or 'any'}'".encode())
        try:
            yield
        finally:
            connection.execute("DROP SCHEMA IF EXISTS shipper CASCADE")
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


@pytest.mark.parametrize(("module", "function"), [(os, "dup"), (socket, "socketpair")])
def test_no_descriptor_is_left(
    module: object, function: str, states: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stands by tries again when it has too many open files. Mutant: let the error end it."""

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    url = sa.make_url(f"postgresql+psycopg://root@127.0.0.1:{states.port}/states")
    monkeypatch.setattr(module, function, fail)
    with pytest.raises(StateBusy, match="Too many open files") as caught:
        connector(Access(url, 3, None, "off"))("test")

    assert "LimitNOFILE" in str(caught.value.hint)


def test_host_that_is_no_name() -> None:
    """A host that can be no name is an error with a remedy. Mutant: translate only psycopg's errors."""
    url = sa.URL.create("postgresql+psycopg", "root", None, f"{'a' * 64}.internal", 5432, "states")
    with pytest.raises(StateBusy, match="label empty or too long") as caught:
        connector(Access(url, 3, None, "off"))("test")

    assert "[state] database" in str(caught.value.hint)
