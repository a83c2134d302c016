"""Edge. SQLAlchemy: PostgreSQL's snapshots and what rewrites a table.

A TRUNCATE or an ALTER TABLE that comes between a snapshot and its first look at a table shows that table empty. So it
is locked before the snapshot begins. That needs SELECT on all of it, and a table or a view: where it cannot be done, a
look is good if the table's file is still the one that the snapshot knows.
"""

import sqlalchemy as sa

from shipper.errors import SourceUnavailable
from shipper.model import Query
from shipper.source.statement import table_named

_CANNOT = ("42501", "42809")  # insufficient_privilege, wrong_object_type: PostgreSQL's manual, appendix A
# pg_class is read as it was when the snapshot began, and the function sees what is now; the table is locked by then
_REWRITTEN = """
    SELECT COUNT(*) FROM pg_class WHERE oid = to_regclass(:path)
        AND relfilenode <> pg_relation_filenode(oid) AND NOT EXISTS (SELECT {id} FROM {table} WHERE false)"""


def lock(connection: sa.Connection, query: Query, lockless: set[str]) -> bool:
    """Keep others from rewriting the table of a snapshot; False where it must begin anew because that failed.

    Raises:
        SourceUnavailable: the table was rewritten since the snapshot began.
    """
    quote = connection.dialect.identifier_preparer
    table = quote.format_table(table_named(query.table, ()))
    if query.table not in lockless:
        try:
            connection.exec_driver_sql(f"LOCK TABLE {table} IN ACCESS SHARE MODE")
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _CANNOT:
                raise
            lockless.add(query.table)
            return False
        return True
    statement = sa.text(_REWRITTEN.format(id=quote.quote_identifier(query.id), table=table.replace(":", "\\:")))
    if connection.execute(statement, {"path": table}).scalar_one():
        raise SourceUnavailable(f"look at {query.table}: it was rewritten meanwhile")
    return True
