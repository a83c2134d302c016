"""Edge. SQLAlchemy: what a source's user must be granted, column by column, as statements to paste."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from sqlalchemy.sql.compiler import IdentifierPreparer

from shipper.model import Query
from shipper.source.connect import Access, option
from shipper.source.statement import table_of

DEFAULT_USER = "shipper"


def grants(access: Access, queries: Iterable[Query], *, host: str) -> Iterator[str]:
    """Write a GRANT for each table, and a comment where columns stand in SQL that is the operator's own.

    Host is that of a MySQL account: from where it may connect.
    """
    queries = list(queries)
    kind, quote = access.kind, access.url.get_dialect()().identifier_preparer
    if kind == "sqlite":
        yield f"-- {access.url.database} must be readable for the user that shipper runs as"
        return
    user = _account(kind, access.url.username or option(access, "user") or DEFAULT_USER, host, quote)
    columns: dict[str, set[str]] = defaultdict(set)
    for query in queries:
        columns[query.table] |= {query.id} if query.sql else {column.name for column in table_of(query).columns}
    for table, names in columns.items():
        schema, _, name = table.rpartition(".")
        if kind == "postgresql" and schema:
            yield f"GRANT USAGE ON SCHEMA {quote.quote_identifier(schema)} TO {user};"
        place = [schema or (access.url.database if kind != "postgresql" else ""), name]
        path = ".".join(quote.quote_identifier(part) for part in place if part)
        listed = ", ".join(quote.quote_identifier(column) for column in sorted(names))
        yield f"GRANT SELECT ({listed}) ON {path} TO {user};"
    own = [text for query in queries for text in (query.where_sql, query.sql) if text]
    for text in dict.fromkeys(own):
        yield f"-- and SELECT on the columns named in: {' '.join(text.split())}"


def _account(kind: str, user: str, host: str, quote: IdentifierPreparer) -> str:
    if kind == "postgresql":
        return quote.quote_identifier(user)
    return "@".join("'{}'".format(part.replace("'", "''")) for part in (user, host))
