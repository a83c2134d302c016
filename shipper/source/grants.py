"""SQLAlchemy: statements for an administrator to paste: grants column by column, an index."""

from collections.abc import Iterable, Iterator, Mapping

from sqlalchemy.sql.compiler import IdentifierPreparer

from shipper.core.model import Query
from shipper.source.connect import Access, option
from shipper.source.statement import columns_of

DEFAULT_USER = "shipper"
MOST_LETTERS = 63  # of a name in PostgreSQL; MySQL has one more


def grants(access: Access, queries: Iterable[Query], *, host: str) -> Iterator[str]:
    """Write a GRANT for each table, and a comment where columns stand in SQL that is the operator's own.

    Host is that of a MySQL account: from where it may connect.
    """
    queries = list(queries)
    if access.kind == "sqlite":
        yield f"-- {access.url.database} must be readable for the user that shipper runs as"
        return
    user = access.url.username or option(access, "user") or DEFAULT_USER
    yield from granting(access, f"{user}@{host}", columns_by_table(queries))
    own = [text for query in queries for text in (query.where_sql, query.sql) if text]
    for text in dict.fromkeys(own):
        yield f"-- and SELECT on the columns named in: {' '.join(text.split())}"


def columns_by_table(queries: Iterable[Query]) -> dict[str, set[str]]:
    """Return the columns of each table that queries name."""
    found: dict[str, set[str]] = {}
    for query in queries:
        found.setdefault(query.table, set()).update(columns_of(query))
    return found


def granting(access: Access, account: str, columns: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Write a GRANT on some columns of each table to an account, USER@HOST."""
    quote = access.url.get_dialect()().identifier_preparer
    user = _account(access.kind, account, quote)
    for table, names in columns.items():
        schema = table.rpartition(".")[0]
        if access.kind == "postgresql" and schema:
            yield f"GRANT USAGE ON SCHEMA {quote.quote_identifier(schema)} TO {user};"
        path = _placed(access, table, quote)
        listed = ", ".join(quote.quote_identifier(column) for column in sorted(names))
        yield f"GRANT SELECT ({listed}) ON {path} TO {user};"


def indexing(access: Access, table: str, column: str) -> str:
    """Write what gives a table an index on a column."""
    quote = access.url.get_dialect()().identifier_preparer
    name = quote.quote_identifier(f"{table.rpartition('.')[2]}_{column}"[:MOST_LETTERS])
    return f"CREATE INDEX {name} ON {_placed(access, table, quote)} ({quote.quote_identifier(column)});"


def transactional(access: Access, table: str) -> str:
    """Write what gives a table of MySQL or MariaDB an engine that has transactions."""
    return f"ALTER TABLE {_placed(access, table, access.url.get_dialect()().identifier_preparer)} ENGINE = InnoDB;"


def _placed(access: Access, table: str, quote: IdentifierPreparer) -> str:
    schema, _, name = table.rpartition(".")
    place = [schema or (access.url.database if access.kind in {"mysql", "mariadb"} else ""), name]
    return ".".join(quote.quote_identifier(part) for part in place if part)


def _account(kind: str, account: str, quote: IdentifierPreparer) -> str:
    user, _, host = account.rpartition("@")
    if kind == "postgresql":
        return quote.quote_identifier(user)
    return "@".join("'{}'".format(part.replace("'", "''")) for part in (user, host))
