"""Rogue databases for tests: rows of answers in front of a real server, which they become when they are well."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest
import sqlalchemy as sa
from hostile import rogue_mysql, rogue_postgresql
from hostile.rogue import Rogue, Treatment, impersonating

from shipper.source.access import Access

if TYPE_CHECKING:
    from servers import MariaDB, PostgreSQL

SERVERS = ("mariadb_server", "postgresql")
ROGUES = {"mariadb_server": rogue_mysql, "postgresql": rogue_postgresql}


class Case(NamedTuple):
    """A row of the tables."""

    name: str
    treat: Treatment
    is_slow: bool
    """Whether only a time-out ends the answer."""
    is_large: bool
    """Whether the answer must not be read to its end."""


def cases_of(server: str, port: int, *, at: bytes = b"audit_trail") -> list[Case]:
    """Return the rows about logins, and those about statements, which begin with the first that contains `at`."""
    rogue = ROGUES[server]

    def cases(kind: str, treatments: Mapping[str, Treatment]) -> Iterator[Case]:
        for name, treat in treatments.items():
            yield Case(f"{kind} {name}", treat, name in rogue.SLOW, name in rogue.LARGE)

    statements = {name: impersonating(port, treat, at=at) for name, treat in rogue.TO_STATEMENTS.items()}
    return [*cases("login", rogue.TO_LOGINS), *cases("statement", statements)]


class Real(NamedTuple):
    """A real server with an empty audit_trail."""

    kind: str
    url: sa.URL
    port: int

    def access(self, rogue: Rogue, *, timeout: int = 1) -> Access:
        """Return how to reach it through a rogue."""
        return Access(self.url.set(port=rogue.port), timeout)


def real(request: pytest.FixtureRequest, server: str) -> Real:
    """Make an empty audit_trail on a server, which a fixture runs."""
    running = cast("MariaDB | PostgreSQL", request.getfixturevalue(server))
    return Real(server, sa.make_url(running.make_database("app")), running.port)
