"""SQLAlchemy: PostgreSQL's snapshots and what rewrites a table.

A TRUNCATE or an ALTER TABLE that comes between a snapshot and its first look at a table shows that table empty. So it
is locked before the snapshot begins. That needs SELECT on all of it; and SQL of the operator's own may look at other
tables, too. There what was read is good if all that was looked at still has the files that the snapshot knows.
"""

import sqlalchemy as sa

from shipper.core.errors import SourceUnavailable
from shipper.core.model import Query
from shipper.source.statement import table_named

_CANNOT = ("42501", "42809")  # insufficient_privilege, wrong_object_type: PostgreSQL's manual, appendix A
# A transaction holds a lock on all that it has looked at: also on partitions, and on what views and functions look at.
# pg_class is read as it was when the snapshot began, and the function sees what is now; 0 is a view, or a catalog's
_REWRITTEN = """
    SELECT COUNT(*) FROM pg_locks LEFT JOIN pg_class ON pg_class.oid = relation
    WHERE locktype = 'relation' AND pid = pg_backend_pid()
        AND (relfilenode IS NULL OR (relfilenode <> 0 AND relfilenode <> pg_relation_filenode(relation)))"""


def lock(connection: sa.Connection, query: Query, lockless: set[str]) -> bool:
    """Keep others from rewriting the table of a snapshot; False where it must begin anew because that failed."""
    if query.table in lockless:
        return True
    quote = connection.dialect.identifier_preparer
    try:
        connection.exec_driver_sql(
            f"LOCK TABLE {quote.format_table(table_named(query.table, ()))} IN ACCESS SHARE MODE"
        )
    except sa.exc.DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) not in _CANNOT:
            raise
        lockless.add(query.table)
        return False
    return True


def is_own(query: Query) -> bool:
    """Is there SQL of the operator's own in it, which may look at other tables?"""
    return query.sql is not None or query.where_sql is not None


def check_files(connection: sa.Connection, query: Query, lockless: set[str]) -> None:
    """See whether what was read within a snapshot was of tables as it knows them.

    Raises:
        SourceUnavailable: one of them was rewritten since it began.
    """
    if (is_own(query) or query.table in lockless) and connection.exec_driver_sql(_REWRITTEN).scalar_one():
        raise SourceUnavailable(f"look at {query.table}: a table was rewritten meanwhile")
