"""A night with the handbook: its commands from a hole in a dashboard to a correct graph, as they are printed."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import whisper
from graphite_web import GraphiteWeb
from handbook import handbook, walk
from harness import EVENTS, Shipper, wait_for
from servers import MariaDB

from shipper.demo.carbon_cache import CarbonCache

MINUTE, HOUR = 60, 3600
NIGHT = range(6 * HOUR, 6 * HOUR + 30 * MINUTE, MINUTE)
HOLE = range(6 * HOUR + 14 * MINUTE, 6 * HOUR + 17 * MINUTE, MINUTE)
FAILED = EVENTS.replace("events", "failed_logins")


class Night:
    """A service at seven in the morning, local time, after a night with two failed logins a minute."""

    def __init__(
        self, folder: Path, database: str, graphite: tuple[CarbonCache, GraphiteWeb], mariadb: MariaDB
    ) -> None:
        cache, web = graphite
        now = int(time.time())
        self.midnight = now // MINUTE * MINUTE - 7 * HOUR
        ahead = -self.midnight % (24 * HOUR) // MINUTE  # east of UTC, which may be no real zone
        self.zone = f"<HERE>-{ahead // 60}:{ahead % 60:02}"
        prefix = f"night{time.monotonic_ns()}"
        self.app = Shipper(folder, url=database, port=cache.port, jobs=FAILED)
        text = self.app.config.read_text().replace('"1m:1d"', '"1m:1d,1h:30d"')
        self._graphite = f'prefix = "{prefix}"\nreplay = ["1h"]\n'
        self._render_url = f'render_url = "{web.url}"\n'
        self.app.config.write_text(text.replace('prefix = "audit"\n', self._graphite))
        self._file = cache.storage / f"{prefix}/failed_logins/login/count.wsp"
        with mariadb.connect("app") as connection, connection.cursor() as cursor:
            rows = [(self.midnight + second,) for second in NIGHT] * 2
            cursor.executemany("INSERT INTO audit_trail (created_at, action) VALUES (FROM_UNIXTIME(%s), 'login')", rows)

    def start(self) -> None:
        """Start the service, and wait until Graphite's file has all minutes and the service looks at them no more.

        A sample of them, or a replay, would fill the hole: the night is long over.
        """
        self.app.start()
        wait_for(lambda: len(self.bars()) == len(NIGHT), "the night's bars")
        text = self.app.config.read_text()
        self.app.config.write_text(text.replace(self._graphite, self._graphite + self._render_url))
        assert self.app.call("admin reload").returncode == 0
        wait_for(lambda: self.app.call("status").returncode == 0, "all well")

    def bars(self) -> dict[int, float]:
        """Return the night's minutes in Graphite's file, keyed by seconds since midnight."""
        begin, end = self.midnight + NIGHT.start - MINUTE, self.midnight + NIGHT.stop - MINUTE
        try:
            (start, stop, step), values = whisper.fetch(str(self._file), begin, end, archiveToSelect=MINUTE)
        except (FileNotFoundError, whisper.CorruptWhisperFile):  # Carbon has not created it completely
            return {}
        found = zip(range(start, stop, step), values, strict=True)
        return {slot - self.midnight: value for slot, value in found if value is not None}

    def lose(self) -> None:
        """Remove some minutes from the file, as the restore of an old backup does."""
        left = {slot: value for slot, value in self.bars().items() if slot not in HOLE}
        other = self._file.with_suffix(".restored")
        whisper.create(str(other), [(MINUTE, 24 * 60), (HOUR, 30 * 24)], xFilesFactor=0, aggregationMethod="sum")
        whisper.update_many(str(other), [(self.midnight + slot, value) for slot, value in left.items()])
        other.rename(self._file)

    def walk(self, line: str) -> tuple[int, str]:
        """Run a command of the handbook in a time zone where it is seven in the morning."""
        return walk(self.app.config, line, TZ=self.zone)


@pytest.fixture
def night(
    tmp_path: Path, database: str, graphite: tuple[CarbonCache, GraphiteWeb], mariadb: MariaDB
) -> Iterator[Night]:
    """Give a night that is over."""
    night = Night(tmp_path, database, graphite, mariadb)
    night.start()
    yield night
    assert night.app.stop() == 0


def test_hole_at_a_quarter_past_six(night: Night) -> None:
    """Status, history, reconcile, reconcile --fix, reconcile: each leads to the next, and then all is equal."""
    status, history, compare, fix, again = handbook("troubleshoot.md", "A hole in a dashboard")
    night.lose()
    assert set(NIGHT) - set(night.bars()) == set(HOLE)

    code, shown = night.walk(status)
    assert (code, "failed_logins  ok" in shown) == (0, True), shown
    code, shown = night.walk(history)
    assert code == 0
    assert " 06:15:00 HERE" in shown
    code, shown = night.walk(compare)
    assert code == 1, shown
    assert shown.count("missing") == len(HOLE)
    assert " 06:15:00 HERE" in shown
    code, shown = night.walk(fix)
    assert code == 0, shown
    assert "Continue? [y/N]" in shown
    assert " 06:14:00 HERE up to " in shown
    wait_for(lambda: night.bars() == dict.fromkeys(NIGHT, 2.0), "no hole")
    code, shown = night.walk(again)

    assert code == 0, shown
    assert "missing" not in shown
