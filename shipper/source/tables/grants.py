"""Statements for an administrator to paste: grants on columns, an index, an engine."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy.sql.compiler import IdentifierPreparer

from shipper.core.model import Query
from shipper.source.access import Access
from shipper.source.dialects.by_name import dialect_named
from shipper.source.statements.clauses import columns_of
from shipper.source.tables.catalog import Index
from shipper.source.tables.times import units_of

DEFAULT_USER = "shipper"
ALL = "*"
MOST_LETTERS = 63  # of a name in PostgreSQL; MySQL allows one more


def grants(access: Access, queries: Collection[Query], *, host: str) -> Iterator[str]:
    """Write a GRANT for each table, and a comment for each custom SQL text, whose columns are not known.

    Host is that of a MySQL account: the host from which the account may connect.
    """
    user = dialect_named(access.kind).user(access) or DEFAULT_USER
    account = f"{user}@{host}"
    if dialect_named(access.kind).account(account, _quote(access)) is None:
        yield f"-- let the service's user read {access.url.database}"
        return
    columns: dict[str, set[str]] = {}
    for query in queries:
        columns.setdefault(query.table, set()).update(columns_of(query))
    yield from granting(access, account, columns)
    for text in dict.fromkeys(text for query in queries for text in query.texts):
        yield f"-- and SELECT on the columns named in: {' '.join(text.split())}"


def revokes(access: Access, granted: Iterable[tuple[str, str]], *, host: str) -> Iterator[str]:
    """Write a REVOKE of SELECT for each schema and table of a GRANT, to run before a GRANT on some columns."""
    quote, user = _quote(access), dialect_named(access.kind).user(access) or DEFAULT_USER
    grantee = dialect_named(access.kind).account(f"{user}@{host}", quote)
    for schema, table in granted if grantee is not None else ():
        if schema == ALL:  # perhaps an administrator
            yield f"-- {user} may read all databases of this server: better create a user for shipper alone"
        else:
            path = f"{quote.quote_identifier(schema)}.{ALL}" if table == ALL else _path(access, f"{schema}.{table}")
            yield f"REVOKE SELECT ON {path} FROM {grantee};"


def granting(access: Access, account: str, columns: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """Write a GRANT on some columns of each table to an account, USER@HOST."""
    dialect, quote = dialect_named(access.kind), _quote(access)
    grantee = dialect.account(account, quote)
    for table, names in columns.items():
        schema = table.rpartition(".")[0]
        if schema and dialect.GRANT_SCHEMA:
            yield dialect.GRANT_SCHEMA.format(schema=quote.quote_identifier(schema), account=grantee)
        listed = ", ".join(quote.quote_identifier(column) for column in sorted(names))
        yield f"GRANT SELECT ({listed}) ON {_path(access, table)} TO {grantee};"


def indexing(access: Access, table: str, column: str) -> str:
    """Write the statement that creates an index on a column."""
    quote = _quote(access)
    name = quote.quote_identifier(f"{table.rpartition('.')[2]}_{column}"[:MOST_LETTERS])
    return f"CREATE INDEX {name} ON {_path(access, table)} ({quote.quote_identifier(column)});"


def usable(access: Access, table: str, index: Index) -> str:
    """Write the statement after which the planner uses an index again."""
    return dialect_named(access.kind).REVIVE_INDEX.format(
        table=_path(access, table),
        index=_quote(access).quote_identifier(index.name),
        path=_path(access, f"{table.rpartition('.')[0]}.{index.name}".removeprefix(".")),
        required=index.required,
    )


def transactional(access: Access, table: str) -> str:
    """Write the statement that gives a table an engine with transactions."""
    return f"ALTER TABLE {_path(access, table)} {dialect_named(access.kind).MAKE_TRANSACTIONAL};"


def shared_id(access: Access, table: str, column: str, value: int, *, is_view: bool = False) -> str:
    """Write how a job can count a table in which several rows have such a value of its `id`."""
    others = without_id(access, table, column, value=value, is_view=is_view)
    return f"Set `id` to a column with unique values. If there is none: {others}"


def without_id(
    access: Access, table: str, column: str, type_: str = "", *, value: int = 0, is_view: bool = False
) -> str:
    """Write how a job can count a table without the integer key that it names as `id`; value is one of that column."""
    along = "Set `id` and `time` to an indexed time column, and `time_unit` if it contains numbers that count from 1970"
    if type_.startswith(("date", "timestamp")):
        along = f'Keep `id`, and set `time = "{column}"` as well'
    elif units := units_of(value):
        along = f'Set `time = "{column}"` and `time_unit = "{units[0]}"`'
    add = "" if is_view else dialect_named(access.kind).ADD_KEY.format(table=_path(access, table))
    other = (
        "Or set `id` to an integer key of the table behind the view." if is_view else "Or set `id` to an integer key."
    )
    key = f'Or add a key, and set `id = "n"`: {add}' if add else other
    return f"{along}: the job then reads by that column. {key}"


def _path(access: Access, table: str) -> str:
    schema, _, name = table.rpartition(".")
    database = access.url.database if dialect_named(access.kind).NAMES_DATABASE else None
    return ".".join(_quote(access).quote_identifier(part) for part in (schema or database, name) if part)


def _quote(access: Access) -> IdentifierPreparer:
    dialect: Any = access.url.get_dialect()
    # the driver's own style of parameters would double each %
    quote: IdentifierPreparer = dialect(paramstyle="named").identifier_preparer
    return quote
