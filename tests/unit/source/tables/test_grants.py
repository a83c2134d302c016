"""Grants as SQL."""

from builders import query
from sqlalchemy import make_url

from shipper.core.measures import Kind, Measure
from shipper.core.model import Condition, Names
from shipper.source.access import Access
from shipper.source.tables.grants import grants

MYSQL = "mysql+pymysql://o'hara@db1/app"


def granted(url: str, *queries: dict[str, object]) -> list[str]:
    """Return the grants that are printed for queries."""
    return list(grants(Access(make_url(url), 1), [query(**changes) for changes in queries], host="10.%"))


def test_each_column_once() -> None:
    """One statement grants all columns that jobs read of a table; names and accounts are quoted."""
    measures = (Measure("ms", Kind.SUM, "duration`ms"),)

    (statement,) = granted(MYSQL, {"where": (Condition("outcome", "in", ("x",)),)}, {"measures": measures, "by": ()})

    assert statement.startswith("GRANT SELECT (`action`, `created_at`, `duration``ms`, `id`, `outcome`) ON ")
    assert statement.endswith(" `app`.`audit_trail` TO 'o''hara'@'10.%';")


def test_other_tables() -> None:
    """Each table has a statement, which names its schema."""
    assert granted("mariadb+pymysql://db1/app", {"by": ()}, {"table": "old.trail", "by": ()}) == [
        "GRANT SELECT (`created_at`, `id`) ON `app`.`audit_trail` TO 'shipper'@'10.%';",
        "GRANT SELECT (`created_at`, `id`) ON `old`.`trail` TO 'shipper'@'10.%';",
    ]


def test_own_sql() -> None:
    """Columns in custom SQL are unknown: the SQL is shown."""
    labels: dict[str, object] = {
        "by_sql": (("action", "LOWER(d)"),),
        "names": (Names("action", sql="SELECT e, f FROM g"),),
    }
    where: dict[str, object] = {"where_sql": "a = 1\n  AND b", "by": ()}
    lines = granted("postgresql+psycopg://db1/app", where, {"sql": "SELECT c"}, labels)

    assert lines == [
        'GRANT SELECT ("created_at", "id") ON "audit_trail" TO "shipper";',
        "-- and SELECT on the columns named in: a = 1 AND b",
        "-- and SELECT on the columns named in: SELECT c",
        "-- and SELECT on the columns named in: LOWER(d)",
        "-- and SELECT on the columns named in: SELECT e, f FROM g",
    ]


def test_file() -> None:
    """A file has no grants."""
    assert granted("sqlite:////srv/app.db", {}) == ["-- let the service's user read /srv/app.db"]
