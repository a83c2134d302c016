"""Edge. The one transaction of capture: a window, the totals that it changes, the rows that cannot be shown."""

import json
import sqlite3
from collections.abc import Iterable, Mapping

from shipper.errors import ConfigError
from shipper.model import Cause, Group, Key, Window
from shipper.schema import NOW

# A job with nothing waiting has nothing to send: its watermark follows captured at once.
_CAPTURED = f"""
    UPDATE watermark
    SET value = CASE WHEN value = captured AND :totals = 0 THEN :upto ELSE value END,
        captured = :upto, updated = {NOW},
        complete_until = COALESCE(strftime('%Y-%m-%dT%H:%M:%SZ', :complete_until, 'unixepoch'), complete_until)
    WHERE job = :job AND captured = :after"""
_TOTAL = """
    INSERT INTO total (slot, step, series, value, revision, changed) VALUES (?, ?, ?, ?, ?, 1)
    ON CONFLICT DO UPDATE SET value = excluded.value, revision = excluded.revision, changed = 1"""
_UNSHOWN = """
    INSERT INTO unshown (job, cause, rows) VALUES (?, ?, ?)
    ON CONFLICT DO UPDATE SET rows = rows + excluded.rows"""
_CLAIM = f'INSERT INTO series (path, job, "group", last_seen) VALUES (?, ?, ?, {NOW})'
# to the hour is enough, and spares a write a tick
_SEEN = f"""
    UPDATE series SET last_seen = {NOW}
    WHERE id = ? AND last_seen < strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-1 hour')"""


class Recording:
    """One open transaction of State.recording."""

    def __init__(self, connection: sqlite3.Connection, job: str, window: Window, revision: int) -> None:
        self.is_written = False
        self._connection = connection
        self._job = job
        self._window = window
        self._revision = revision
        self._series: dict[str, int] = {}

    def claim(self, path: str, group: Group) -> bool:
        """Make the path this job's group's if it is nobody's; return whether it is the group's now."""
        raw = json.dumps(group)
        owner = self._connection.execute('SELECT id, job, "group" FROM series WHERE path = ?', (path,)).fetchone()
        if owner is not None and owner[1] != self._job:
            raise ConfigError(
                f"name {path}: it belongs to job {owner[1]}",
                hint="Give one of them another `name`; a renamed job needs one, too, as its old name keeps the series.",
            )
        if owner is None:
            series = self._connection.execute(_CLAIM, (path, self._job, raw)).lastrowid
            assert series is not None
        elif owner[2] == raw:
            series = owner[0]
        else:
            return False
        self._series[path] = series
        return True

    def totals(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return the totals that exist among keys, whose paths are claimed."""
        found = {}
        for key in keys:
            row = self._connection.execute(
                "SELECT value FROM total WHERE slot = ? AND step = ? AND series = ?",
                (key.slot, key.step, self._series[key.path]),
            ).fetchone()
            if row is not None:
                found[key] = row[0]
        return found

    def write(self, totals: Mapping[Key, int], unshown: Mapping[Cause, int], complete_until: int | None) -> None:
        """Store the new totals, add to the counters, and set captured to the window's upper end."""
        captured = {
            "job": self._job,
            "after": str(self._window.after),
            "upto": str(self._window.upto),
            "totals": len(totals),
            "complete_until": complete_until,
        }
        self.is_written = self._connection.execute(_CAPTURED, captured).rowcount == 1
        self._connection.executemany(
            _TOTAL,
            ((key.slot, key.step, self._series[key.path], value, self._revision) for key, value in totals.items()),
        )
        self._connection.executemany(_SEEN, ((series,) for series in self._series.values()))
        self._connection.executemany(_UNSHOWN, ((self._job, cause.value, rows) for cause, rows in unshown.items()))
