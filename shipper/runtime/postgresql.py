"""Sessions for a state in PostgreSQL."""

from collections.abc import Callable
from typing import Any

import psycopg
from typing_extensions import override

from shipper.core.errors import StateBusy
from shipper.source.access import GRACE_SECONDS, Access
from shipper.source.dialects import postgresql
from shipper.source.dialects.postgresql_driver import MeteredConnection
from shipper.source.limits import AnswerTooLarge, AnswerTooLate, Meter
from shipper.state.remote.reader import LOCK_SECONDS
from shipper.state.remote.session import NO_ANSWER, READ_ONLY, message_of

_CONNECTIONS = (
    "Raise max_connections in the server, or CONNECTION LIMIT of role and database: each machine needs one connection, "
    "and each command one more."
)
HINTS = {
    # first what also names user and database
    "pg_hba.conf": "Allow host, user and database in pg_hba.conf: a hostssl line needs TLS, a hostnossl line none.",
    "permission denied": "Let the user connect: GRANT CONNECT ON DATABASE ... TO ...;",
    "not permitted to log in": "Let the role log in: ALTER ROLE ... LOGIN;",
    "too many": _CONNECTIONS,  # of a role or a database, which exist
    "connection slots": _CONNECTIONS,
    "password": "Check user and password: `user` and `password` of [state]. After a change, restart the service.",
    "authentication failed": "Check user and password: `user` and `password` of [state].",
    'role "': "Check `user` of [state]; or make it: CREATE ROLE ... LOGIN.",
    'database "': "Make that database, or correct its name in [state] database.",
    "certificate": "Set `tls_ca` of [state] to the server's CA file (PEM); or, on a trusted network, `tls` to off.",
    "SSL": "Let the server use TLS; or, on a trusted network, set `tls` of [state] to off.",
    "read-only": READ_ONLY,
    "open files": "Raise LimitNOFILE= of the unit, or `ulimit -n`: this process has as many files open as it may.",
}
"""Remedies by words of an error; psycopg gives no SQLSTATE while it connects."""


class Session(MeteredConnection):
    """A session with limits for each answer, which are errors of the database."""

    may_copy = True
    most_bytes = 64 * 2**20
    add_notice_handler = psycopg.Connection.add_notice_handler  # SQLAlchemy adds none here

    def allow(self, seconds: float) -> None:
        """Let each answer take that long from now on."""
        self.meter = Meter(seconds + GRACE_SECONDS)
        self.meter.open()

    @override
    def wait(self, *arguments: Any, **named: Any) -> Any:
        try:
            return super().wait(*arguments, **named)
        except (AnswerTooLate, AnswerTooLarge) as error:
            raise psycopg.OperationalError(str(error)) from error


def connector(access: Access) -> Callable[[str], "psycopg.Connection[tuple[Any, ...]]"]:
    """Return a function that connects, under a name, to the host of the URL that takes writes.

    It raises StateBusy if none does.
    """
    url = access.url
    arguments = {
        **postgresql.arguments(access),
        **{name: value for name, value in url.query.items() if isinstance(value, str)},
        **url.translate_connect_args(database="dbname", username="user"),
        "target_session_attrs": "read-write",
        # what was not acknowledged by then is lost, and so is the lease
        "tcp_user_timeout": access.timeout * 1000,
        "keepalives_idle": 1,
        "keepalives_interval": 1,
    }
    del arguments["prepare_threshold"]  # there is no pooler

    def connect(application: str) -> "psycopg.Connection[tuple[Any, ...]]":
        try:
            session = Session.connect(**arguments | {"application_name": application})
        except (psycopg.Error, AnswerTooLarge, OSError, ValueError) as error:  # the pump opens files, too
            text = str(error)
            hint = next((hint for words, hint in HINTS.items() if words in text), NO_ANSWER)
            raise StateBusy(f"connect to the state's database {access}: {message_of(error)}", hint=hint) from error
        session.allow(max(access.timeout, LOCK_SECONDS))
        return session

    return connect
