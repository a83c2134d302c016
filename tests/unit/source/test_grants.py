"""What must be granted, as SQL."""

from builders import query
from sqlalchemy import make_url

from shipper.core.measures import Kind, Measure
from shipper.core.model import Condition
from shipper.source.access import Access
from shipper.source.grants import grants

MYSQL = "mysql+pymysql://o'hara@db1/app"


def granted(url: str, *queries: dict[str, object]) -> list[str]:
    """Return what is printed for queries."""
    return list(grants(Access(make_url(url), 1), [query(**changes) for changes in queries], host="10.%"))


def test_each_column_once() -> None:
    """All that the jobs on a table read is one statement; names and accounts are quoted."""
    measures = (Measure("ms", Kind.SUM, "duration`ms"),)

    (found,) = granted(MYSQL, {"where": (Condition("outcome", "in", ("x",)),)}, {"measures": measures, "by": ()})

    assert found.startswith("GRANT SELECT (`action`, `created_at`, `duration``ms`, `id`, `outcome`) ON ")
    assert found.endswith(" `app`.`audit_trail` TO 'o''hara'@'10.%';")


def test_other_tables() -> None:
    """Each table has a statement; one in another schema names that."""
    assert granted("mariadb+pymysql://db1/app", {"by": ()}, {"table": "old.trail", "by": ()}) == [
        "GRANT SELECT (`created_at`, `id`) ON `app`.`audit_trail` TO 'shipper'@'10.%';",
        "GRANT SELECT (`created_at`, `id`) ON `old`.`trail` TO 'shipper'@'10.%';",
    ]


def test_own_sql() -> None:
    """What only the operator's SQL names cannot be known, so it is shown."""
    found = granted("postgresql+psycopg://db1/app", {"where_sql": "a = 1\n  AND b", "by": ()}, {"sql": "SELECT c"})

    assert found == [
        'GRANT SELECT ("created_at", "id") ON "audit_trail" TO "shipper";',
        "-- and SELECT on the columns named in: a = 1 AND b",
        "-- and SELECT on the columns named in: SELECT c",
    ]


def test_file() -> None:
    """A file knows no grants."""
    assert granted("sqlite:////srv/app.db", {}) == ["-- /srv/app.db must be readable for the user that shipper runs as"]
