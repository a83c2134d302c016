"""Sessions for a state in PostgreSQL."""

from collections.abc import Callable
from typing import Any

import psycopg

from shipper.source.access import Access
from shipper.source.dialects import postgresql


def connector(access: Access) -> Callable[[str], "psycopg.Connection[tuple[Any, ...]]"]:
    """Return a function that connects, under a name, to whichever host of the URL takes writes."""
    url = access.url
    arguments = {
        **{name: value for name, value in url.query.items() if isinstance(value, str)},
        "host": url.host,
        "port": url.port,
        "dbname": url.database,
        "user": url.username,
        "password": url.password,
        **postgresql.arguments(access),
        "target_session_attrs": "read-write",
        # what was not acknowledged by then is lost, and so is the lease
        "tcp_user_timeout": access.timeout * 1000,
        "keepalives_idle": 1,
        "keepalives_interval": 1,
    }
    del arguments["prepare_threshold"]  # there is no pooler
    arguments = {name: value for name, value in arguments.items() if value is not None}

    def connect(application: str) -> "psycopg.Connection[tuple[Any, ...]]":
        return psycopg.connect(**arguments | {"application_name": application})

    return connect
