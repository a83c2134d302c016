"""An audit trail in SQLite that grows."""

import random
import sqlite3
import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

_TABLE = """
    CREATE TABLE audit_trail (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        created_at TEXT NOT NULL,
        end_date TEXT,
        action TEXT,
        outcome TEXT,
        duration_ms INTEGER
    )"""
_INSERT = "INSERT INTO audit_trail (created_at, action, outcome, duration_ms) VALUES (?, ?, ?, ?)"
_COUNTS = """
    SELECT action, CAST(strftime('%s', substr(created_at, 1, 19)) AS INTEGER), COUNT(*)
    FROM audit_trail GROUP BY 1, 2"""

ACTIONS = ("login", "logout", "export")
PAUSE_SECONDS = 0.05


class AuditTrail:
    """The table, and a thread that adds rows to it until `stop`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._grow, daemon=True)
        with closing(self._connect()) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_TABLE)

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database."""
        return f"sqlite:///{self._file}"

    def start(self) -> None:
        """Start to add rows."""
        self._thread.start()

    def stop(self) -> None:
        """Stop adding rows."""
        self._stop.set()
        self._thread.join()

    def counts(self) -> dict[str, dict[int, int]]:
        """Return the number of rows by action and second, which Graphite must equal."""
        counts: dict[str, dict[int, int]] = {}
        with closing(self._connect()) as connection:
            for action, second, rows in connection.execute(_COUNTS):
                counts.setdefault(action, {})[second] = rows
        return counts

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._file, timeout=10, isolation_level=None)

    def _grow(self) -> None:
        dice = random.Random(7)  # noqa: S311 - demonstration data
        with closing(self._connect()) as connection:
            while not self._stop.wait(PAUSE_SECONDS):
                now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
                rows = [
                    (now, dice.choice(ACTIONS), dice.choice(("success", "failure")), dice.randint(1, 900))
                    for _ in range(dice.randint(0, 5))
                ]
                connection.execute("BEGIN")
                connection.executemany(_INSERT, rows)
                connection.execute("COMMIT")
