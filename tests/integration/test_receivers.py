"""Equal relays, tried one after the other: on real carbon-relays before one carbon-cache, and on what tests control."""

import json
import operator
import re
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import fmean

import pytest
from builders import points
from harness import Shipper, wait_for
from relays import CarbonRelay, Combining, Line
from servers import SCHEMAS, MariaDB

from shipper.core.errors import DeliveryFailed
from shipper.demo.carbon_cache import CarbonCache
from shipper.graphite.carbon import Carbon
from shipper.graphite.receivers import Receivers

POINT = points("a.count 1 1790000040\n")


def refusing() -> Carbon:
    """Return a receiver at which nobody listens."""
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return Carbon("127.0.0.1", chosen.getsockname()[1], timeout=5)


def test_next_receiver() -> None:
    """The next receiver confirms, and stays in use; the switch is reported once, with its reason."""
    lines: list[bytes] = []
    line = Line(lines.append)
    down = refusing()
    with closing(line), closing(Receivers([down, Carbon("127.0.0.1", line.port, timeout=5)])) as receivers:
        assert str(receivers) == str(down)
        receivers.deliver(iter(POINT))
        assert lines == [b"a.count 1 1790000040\n"]
        assert (str(receivers), receivers.addresses) == (f"127.0.0.1:{line.port}", f"{down}, 127.0.0.1:{line.port}")
        assert [receivers.has_died(), receivers.has_died()] == [True, False]
        assert "refused" in str(receivers.failure)
        assert not receivers.may_write_old_values
        receivers.deliver(POINT)

        assert not receivers.has_died()
        assert receivers.watched is not None


def test_no_receiver() -> None:
    """If all fail, the error names each, and the next delivery begins with the same one; that is no switch."""
    receivers = Receivers([refusing(), refusing()])
    before = str(receivers)
    with pytest.raises(DeliveryFailed, match=r"deliver to .* refused; deliver to .* refused") as caught:
        receivers.deliver(POINT)

    assert "port" in str(caught.value.hint)
    assert (str(receivers), receivers.has_died()) == (before, False)


def test_receiver_that_hangs() -> None:
    """While a receiver hangs it may write old values; its end or its continuation is reported once.

    Mutants: close the witness of a receiver that failed; take a receiver that hangs for dead.
    """
    lines: list[bytes] = []
    hanging, other = Line(lines.append), Line(lines.append)
    edges = [Carbon("127.0.0.1", one.port, timeout=seconds) for one, seconds in ((hanging, 2), (other, 30))]
    with closing(hanging), closing(other), closing(Receivers(edges)) as receivers:
        receivers.deliver(POINT)
        hanging.runs.clear()
        receivers.deliver(points("a.count 2 1790000040\n"))
        receivers.deliver(points("a.count 3 1790000040\n"))
        assert str(receivers) == str(edges[1])
        assert (receivers.has_died(), receivers.has_died(), receivers.may_write_old_values) == (True, False, True)
        hanging.runs.set()
        wait_for(receivers.has_died, "the receiver continues")
        wait_for(lambda: [line.split()[1] for line in lines] == [b"1", b"2", b"3", b"2"], "the old value")

        assert (receivers.has_died(), receivers.may_write_old_values) == (False, False)


def test_ipv6() -> None:
    """An IPv6 address works, and is shown in brackets."""
    lines: list[bytes] = []
    line = Line(lines.append, "::1")
    with closing(line), closing(Carbon("::1", line.port, timeout=5)) as edge:
        edge.deliver(POINT)

        assert (str(edge), lines) == (f"[::1]:{line.port}", [b"a.count 1 1790000040\n"])


def test_name_of_several_machines() -> None:
    """A name may stand for several machines: the witness and the values go to the same one.

    Mutant: look the name up for each connection.
    """
    line = Line(lambda _: None)
    with closing(line), closing(Carbon("localhost", line.port, timeout=5)) as edge:
        edge.deliver(POINT)
        edge.host = "other.invalid"
        edge.deliver(POINT)
        edge.close()
        with pytest.raises(DeliveryFailed):
            edge.deliver(POINT)


@pytest.mark.parametrize(
    ("combine", "verdict", "remedy"),
    [
        (fmean, "✗ a value sent again: Graphite keeps the average, not the last", "deploy/receivers.md"),
        (max, "✗ a value sent again: Graphite keeps the largest, not the last", "a value that shrinks"),
        (
            operator.itemgetter(0),
            "✗ a value sent again: Graphite keeps the first, not the last",
            "receiver that overwrites",
        ),
        (operator.itemgetter(-1), "✓ the last value of a slot wins", ""),
    ],
)
def test_doctor(tmp_path: Path, combine: Callable[[list[float]], float], verdict: str, remedy: str) -> None:
    """Doctor names a receiver that does not keep the last value. Mutant: send the slot once."""
    with closing(Combining(combine)) as receiver:
        app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=receiver.port)
        app.config.write_text(
            app.config.read_text().replace("[graphite]", f'[graphite]\nrender_url = "{receiver.url}"')
        )
        ended = app.call("admin doctor", "--wait", "2s")

    assert verdict in ended.stdout.splitlines(), ended.stdout + ended.stderr
    assert (ended.returncode, "✓ sent values can be read" in ended.stdout) == (1 if remedy else 0, True)
    assert remedy in ended.stdout


def test_doctor_of_hosts(tmp_path: Path) -> None:
    """Doctor tests each of several receivers. Mutant: test the one in use only."""
    with closing(Combining(operator.itemgetter(-1))) as receiver, closing(Line(lambda _: None)) as elsewhere:
        app, down = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=1), refusing()
        same, other = f"127.0.0.1:{receiver.port}", f"127.0.0.1:{elsewhere.port}"
        graphite = f'hosts = ["{down}", "{same}", "{other}"]\nrender_url = "{receiver.url}"'
        app.configure("port = 1", graphite)
        shown = app.call("admin doctor", "--wait", "2s").stdout

    assert "✓ the last value of a slot wins" in shown
    assert re.findall(r"^(.) (.*(?:127\.0\.0\.1).*)$", shown, re.MULTILINE) == [
        ("✗", f"deliver to {down}: Connection refused"),
        ("✓", f"{same} sends to this Graphite"),
        ("✗", f"values sent to {other} cannot be read"),
    ]


@pytest.fixture
def carbon_with(tmp_path: Path) -> Iterator[Callable[[str], CarbonCache]]:
    """Return a function that runs a carbon-cache with a further setting."""
    cache = CarbonCache(tmp_path / "carbon", retentions="1m:1d")
    conf = tmp_path / "carbon/conf/carbon.conf"
    text = conf.read_text()

    def run(setting: str) -> CarbonCache:
        cache.stop()
        conf.write_text(f"{text}{setting}\n")
        cache.start()
        return cache

    yield run
    cache.close()


def test_carbon_closes_idle_connections(carbon_with: Callable[[str], CarbonCache], tmp_path: Path) -> None:
    """A real Carbon that closes idle connections has not restarted: all is proven on time, and sent only then.

    Mutant: take the end of the witness for that of Carbon.
    """
    cache = carbon_with("METRIC_CLIENT_IDLE_TIMEOUT = 1")
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=cache.port)
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as source:
        source.execute(SCHEMAS["sqlite"])
        source.execute("INSERT INTO audit_trail (id, created_at, action) VALUES (1, datetime('now'), 'login')")
    app.configure("[graphite]", '[graphite]\nreplay = ["2s", "4s", "6s"]')

    def report() -> tuple[int, int]:
        (job,) = json.loads(app.call("status", "-o", "json").stdout)["jobs"]
        return job["watermark"], job["unproven"]

    app.start()
    try:
        wait_for(lambda: report() == (1, 0), "the row is proven")
        assert "carbon.disconnected" not in app.events()
        cache.stop(signal.SIGKILL)
        wait_for(lambda: "carbon.disconnected" in app.events(), "Carbon has died")
    finally:
        assert app.stop() == 0


def test_check_of_few_connections(carbon_with: Callable[[str], CarbonCache], tmp_path: Path) -> None:
    """A Carbon that answers one connection at a time is an error; the remedy is enough."""
    cache = carbon_with("MAX_RECEIVER_CONNECTIONS = 1")
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=cache.port)
    app.configure('"5s"', '"1s"')
    shown = app.call("check").stdout
    (remedy,) = re.findall(
        rf"^✗ carbon 127.0.0.1:{cache.port}: answers one connection, .*\n +Set (\S+ = \S+) in", shown, re.MULTILINE
    )
    carbon_with(remedy)

    assert f"✓ carbon 127.0.0.1:{cache.port}: accepts data" in app.call("check").stdout


def test_check_of_hosts(tmp_path: Path) -> None:
    """Each receiver is checked. Mutant: only until one works."""
    line, down = Line(lambda _: None), refusing()
    app = Shipper(tmp_path, url=f"sqlite:///{tmp_path}/app.db", port=1)
    hosts = f'hosts = ["{down}", "[::1]:1", "127.0.0.1:{line.port}"]'
    app.configure("port = 1", hosts)
    with closing(line):
        shown = app.call("check").stdout

    assert f"✗ carbon: deliver to {down}: Connection refused" in shown
    assert "✗ carbon: deliver to [::1]:1: Connection refused" in shown
    assert f"✓ carbon 127.0.0.1:{line.port}: accepts data" in shown


@pytest.fixture
def relays(tmp_path: Path, carbon_cache: CarbonCache) -> Iterator[list[CarbonRelay]]:
    """Run two carbon-relays before the carbon-cache."""
    relays = [CarbonRelay(tmp_path / name, destination=carbon_cache.port) for name in ("a", "b")]
    for relay in relays:
        relay.start()
    yield relays
    for relay in relays:
        relay.close()


class Rows:
    """Rows of one minute, and their number in the source and in Carbon."""

    def __init__(self, mariadb: MariaDB, cache: CarbonCache) -> None:
        self.minute = int(time.time()) // 60 * 60 - 120
        self.count = 0
        self._mariadb, self._cache = mariadb, cache

    def insert(self) -> None:
        """Commit a row."""
        self.count += 1
        with self._mariadb.connect("app") as connection, connection.cursor() as cursor:
            statement = "INSERT INTO audit_trail (created_at, action) VALUES (FROM_UNIXTIME(%s), 'login')"
            cursor.execute(statement, (self.minute,))

    def stored(self) -> float | None:
        """Return Carbon's value."""
        return self._cache.sums().get("audit.events.login.count", {}).get(self.minute)

    def arrive(self) -> None:
        """Commit a row, and wait until Carbon has it."""
        self.insert()
        wait_for(lambda: self.stored() == self.count, f"{self.count} rows")


def test_relays(
    tmp_path: Path, database: str, mariadb: MariaDB, carbon_cache: CarbonCache, relays: list[CarbonRelay]
) -> None:
    """Relays are killed in turn, and one hangs for a while: the sum is equal once all is proven.

    Mutant: switch without sending again what the relay before had confirmed.
    """
    app, rows = Shipper(tmp_path, url=database, port=1), Rows(mariadb, carbon_cache)
    a, b = (f"127.0.0.1:{relay.port}" for relay in relays)
    configured = f'hosts = ["{a}", "{b}"]\nreplay = ["1s", "2s", "3s"]'
    app.config.write_text(app.config.read_text().replace("port = 1", configured).replace('"5s"', '"1s"'))

    def report() -> tuple[str, int]:
        document = json.loads(app.call("status", "-o", "json").stdout)
        carbon = next(one for one in document["endpoints"] if one["name"] == "carbon")
        return carbon["address"], document["jobs"][0]["unproven"]

    app.start()
    try:
        rows.arrive()
        assert report()[0] == a

        # killed while idle, and while rows come
        relays[0].stop(signal.SIGKILL)
        rows.arrive()
        wait_for(lambda: report()[0] == b, "the other relay")
        assert f"event=carbon.switched carbon={b} before={a}" in app.text()
        relays[0].start()
        relays[1].stop(signal.SIGKILL)
        rows.arrive()
        wait_for(lambda: report()[0] == a, "the first relay again")
        relays[1].start()
        wait_for(lambda: report()[1] == 0, "all is proven")

        # it hangs with a value, which the next values overtake
        relays[0].send_signal(signal.SIGSTOP)
        rows.insert()
        wait_for(lambda: report()[0] == b, "the other relay")
        rows.arrive()
        assert report()[1] > 0
        relays[0].send_signal(signal.SIGCONT)
        wait_for(lambda: report()[1] == 0, "all is proven")
        wait_for(lambda: rows.stored() == rows.count, "the last value")
        assert "timed out" in app.text()
    finally:
        relays[0].send_signal(signal.SIGCONT)
        assert app.stop() == 0
