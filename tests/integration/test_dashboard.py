"""Dashboards on a real graphite-web: pushed, shown in a browser, and compared with the data."""

import json
import math
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from hashlib import sha256
from itertools import accumulate
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import whisper
from chromium import Chromium
from graphite_web import GraphiteWeb
from harness import Shipper, wait_for
from servers import free_port

SCREENSHOTS = os.environ.get("SCREENSHOTS")
MINUTE, HOUR, DAY = 60, 3600, 86400
JOBS = """
[job.logins]
title = "Logins, by action"
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
name = "logins.{action}.{measure}"

[job.failed_logins]
title = "Failed logins, by action"
table = "audit_trail"
id = "id"
time = "created_at"
where = { outcome = "failure" }
by = ["action"]
name = "failed.{action}.{measure}"

[job.orders]
title = "Orders, by status"
table = "orders"
id = "id"
time = "created_at"
bucket = "5m"
by = ["status"]
measure = { count = "count", amount = "sum:total_cents", slowest = "max:duration_ms" }
name = "orders.{status}.{measure}"

[job.exports]
title = "Exports, by format"
table = "audit_trail"
id = "id"
time = "created_at"
by = ["format"]
name = "exports.{measure}"
tags = { format = "{format}" }
"""
# of an office: series, how many a minute at most, the step of its datapoints
SERIES = {
    "logins.login.count": (60, MINUTE),
    "logins.totp.count": (38, MINUTE),
    "logins.api_key.count": (14, MINUTE),
    "failed.login.count": (5, MINUTE),
    "failed.totp.count": (3, MINUTE),
    "orders.paid.count": (120, 5 * MINUTE),
    "orders.open.count": (45, 5 * MINUTE),
    "orders.paid.amount": (480_000, 5 * MINUTE),
    "orders.open.amount": (160_000, 5 * MINUTE),
    "orders.paid.slowest": (900, 5 * MINUTE),
    "orders.open.slowest": (1400, 5 * MINUTE),
    "exports.count;format=csv": (6, MINUTE),
    "exports.count;format=pdf": (4, MINUTE),
    "shipper.web1.logins.rows": (112, MINUTE),
    "shipper.web1.orders.rows": (33, MINUTE),
    "shipper.web1.orders.lag_rows": (9, MINUTE),
}


class Stage:
    """A shipper with jobs, and a graphite-web with a day of their data."""

    def __init__(self, folder: Path) -> None:
        (folder / "storage/whisper").mkdir(parents=True)
        self.app = Shipper(folder, url="sqlite:////nowhere.db", port=free_port(), jobs=JOBS)
        self.web = GraphiteWeb(folder, root=folder, has_pages=True)
        self.values = _day(folder / "storage/whisper/audit")
        self.web.start()
        for path in self.values:
            if ";" in path:
                self.ask("tags/tagSeries", path=f"audit.{path}")

    def ask(self, path: str, /, **fields: Any) -> Any:
        """Send fields to graphite-web, and return its answer."""
        with urlopen(f"{self.web.url}/{path}", urlencode(fields, doseq=True).encode(), timeout=120) as answer:
            return json.load(answer)

    def rendered(self, target: str, **fields: Any) -> dict[str, list[float]]:
        """Return the values of a target, by the names in its legend."""
        series = self.ask("render", target=target, format="json", noCache=1, until="now", **fields)
        return {one["target"]: [value for value, _ in one["datapoints"] if value is not None] for one in series}

    def dashboard(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `shipper admin dashboard`."""
        return self.app.call("admin dashboard", *arguments)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run graphite-web once for all tests of this file."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.web.stop()


def _day(folder: Path) -> dict[str, dict[int, int]]:
    """Write the last 24 hours of each series as carbon would; return their values by slot."""
    chance = random.Random(7)
    now = int(time.time()) // MINUTE * MINUTE
    written: dict[str, dict[int, int]] = {}
    for path, (most, step) in SERIES.items():
        is_extreme = path.endswith(("slowest", "lag_rows"))
        slots = range((now - DAY) // step * step + step, now + 1, step)
        # counts of random events vary by the root of their number, sums and extremes by a share of their size
        spread = most**0.5 if path.partition(";")[0].endswith(("count", "rows")) else most / 12
        values = {slot: max(0, round(chance.gauss(_load(slot) * most, _load(slot) ** 0.5 * spread))) for slot in slots}
        name, tags = path.partition(";")[::2]
        file = folder / f"{name.replace('.', '/')}.wsp"
        if tags:
            file = folder.parent / _tagged(f"audit.{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        kind = "max" if is_extreme else "sum"
        whisper.create(str(file), [(MINUTE, 2 * DAY // MINUTE), (HOUR, 30 * 24)], 0, kind)
        whisper.update_many(str(file), [(slot, float(value)) for slot, value in values.items()])
        written[path] = values
    return written


def _tagged(path: str) -> str:
    """Return the file of a series with tags, as carbon names it."""
    digest = sha256(path.encode()).hexdigest()
    return f"_tagged/{digest[:3]}/{digest[3:6]}/{path.replace('.', '_DOT_')}.wsp"


def _load(slot: int) -> float:
    """Return the load of an office at a time of the day, up to 1: it opens at 8, has lunch, and closes at 18."""
    hour = (slot % DAY) / HOUR
    open_hours = 1 / (1 + math.exp(-3 * (hour - 8))) - 1 / (1 + math.exp(-2.2 * (hour - 17.6)))
    lunch = 0.62 * math.exp(-(((hour - 12.6) / 0.55) ** 2))
    return max(0.03, open_hours * (0.92 - lunch) + 0.04)


def _expected(stage: Stage, begin: str, end: str, most: Any = sum) -> dict[str, float]:
    """Return the sum of each series with this beginning and end, by the text in between."""
    return {
        path[len(begin) : len(path) - len(end)]: most(values.values())
        for path, values in stage.values.items()
        if path.startswith(begin) and path.endswith(end)
    }


def _sums(shown: dict[str, list[float]]) -> dict[str, float]:
    return {name: sum(values) for name, values in shown.items()}


def test_every_panel_at_every_zoom(stage: Stage) -> None:
    """Each panel's sum is the count: minute by minute, in ten points, and from the coarser archive.

    Mutant: leave consolidateBy out, and ten points are averages.
    """
    drawn = json.loads(stage.dashboard("graphite").stdout)["shipper-audit-jobs"]["graphs"]
    plain = json.loads(stage.dashboard("grafana").stdout)["shipper-audit-jobs"]["panels"]
    expected = {
        "Logins, by action": _expected(stage, "logins.", ".count"),
        "Failed logins, by action": _expected(stage, "failed.", ".count"),
        "Orders, by status: count": _expected(stage, "orders.", ".count"),
        "Orders, by status: amount": _expected(stage, "orders.", ".amount"),
        "Orders, by status: slowest": _expected(stage, "orders.", ".slowest", max),
        "Exports, by format": _expected(stage, "exports.count;format=", ""),
    }

    assert [panel["title"] for panel in plain] == list(expected)
    for zoom in ({"from": "-27h"}, {"from": "-27h", "maxDataPoints": 10}, {"from": "-10d"}):
        for panel, (_, graph, _) in zip(plain, drawn, strict=True):
            shown = stage.rendered(panel["targets"][0]["target"], **zoom)
            stacked = stage.rendered(graph["target"][0], **zoom)
            if panel["title"].endswith("slowest"):
                assert stacked == shown
                totals = {name: max(values) for name, values in shown.items()}
            else:
                totals = _sums(shown)
                assert _sums(stacked) == dict(zip(totals, accumulate(totals.values()), strict=True))
            assert totals == expected[panel["title"]], (panel["title"], zoom)


def test_own_dashboard(stage: Stage) -> None:
    """The dashboard of shipper's own metrics shows them by job and host."""
    state = json.loads(stage.dashboard("graphite").stdout)["shipper-audit-self"]
    panels = {graph[1]["title"]: graph[1]["target"] for graph in state["graphs"]}
    zoom = {"from": "-27h", "maxDataPoints": 10}
    (rows,), (lag,) = panels["Rows captured"], panels["Backlog (ids)"]
    values = stage.values

    counts = [sum(values[f"shipper.web1.{job}.rows"].values()) for job in ("logins", "orders")]
    assert _sums(stage.rendered(rows, **zoom)) == {"logins.web1": counts[0], "orders.web1": sum(counts)}
    (worst,) = stage.rendered(lag, **zoom).values()
    assert max(worst) == max(values["shipper.web1.orders.lag_rows"].values())
    for targets in panels.values():
        for target in targets:
            stage.rendered(target, **zoom)


def test_grafana_files(stage: Stage, tmp_path: Path) -> None:
    """The command writes Grafana's files and provisioning; Graphite accepts each of their targets."""
    folder = tmp_path / "new/dashboards"
    ended = stage.dashboard("grafana", "-d", str(folder))
    files = sorted(folder.iterdir())

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines() == [str(file) for file in files]
    assert "provisioning/dashboards" in ended.stderr
    assert [file.name for file in files] == ["shipper-audit-jobs.json", "shipper-audit-self.json", "shipper.yaml"]
    assert f'path: "{folder}"\n' in files[2].read_text()
    for file in files[:2]:
        for panel in json.loads(file.read_text())["panels"]:
            for query in panel["targets"]:
                stage.rendered(query["target"], **{"from": "-1h"})  # HTTP 400 if it is no expression


def test_push(stage: Stage) -> None:
    """A pushed dashboard is stored unchanged, and a second push reports it as the same."""
    states = json.loads(stage.dashboard("graphite").stdout)
    for name in states:
        stage.ask(f"dashboard/delete/{name}")
    first, second = (stage.dashboard("graphite", "--push", f"{stage.web.url}/") for _ in range(2))

    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    addresses = [f"{stage.web.url}/dashboard/{name}" for name in states]
    assert first.stdout.splitlines() == [f"new: {address}" for address in addresses]
    assert second.stdout.splitlines() == [f"same: {address}" for address in addresses]
    for name, state in states.items():
        assert stage.ask(f"dashboard/load/{name}") == {"state": state}


def test_pictures(stage: Stage, tmp_path: Path) -> None:
    """A browser shows every panel, with complete bars. Mutant: let Graphite consolidate them."""
    names = ("shipper-audit-jobs", "shipper-audit-self")
    assert stage.dashboard("graphite", "--push", stage.web.url).returncode == 0
    with Chromium(tmp_path) as chromium:
        for name in names:
            wanted = len(stage.ask(f"dashboard/load/{name}")["state"]["graphs"])
            chromium.show(f"{stage.web.url}/dashboard/{name}", width=1230, height=915)
            pictures = "[...document.images].filter(one => one.src.includes('/render') && one.naturalWidth > 300)"
            wait_for(lambda: chromium.value(f"{pictures}.length") == wanted, f"{wanted} pictures")  # noqa: B023
            assert chromium.value("document.querySelectorAll('.x-window').length") == 0  # no error pops up
            if name == names[0]:
                for colored, highest in chromium.value(f"{pictures}.map({_COLORED})"):
                    assert colored > 500
                    assert highest < 60
                if SCREENSHOTS:
                    chromium.screenshot(Path(SCREENSHOTS) / "dashboard.png")


# how many of a picture's pixels have the colours of bars and lines, and how many of these are in the highest such row
_COLORED = """image => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext('2d');
    context.drawImage(image, 0, 0);
    const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
    const colors = [[0x4c, 0x78, 0xa8], [0xf5, 0x85, 0x18], [0x54, 0xa2, 0x4b]];
    const rows = new Array(canvas.height).fill(0);
    for (let at = 0; at < data.length; at += 4)
        rows[Math.floor(at / 4 / canvas.width)] += colors.some(color =>
            color.every((part, index) => Math.abs(data[at + index] - part) < 4));
    return [rows.reduce((one, other) => one + other), rows.find(count => count > 0)];
}"""


def test_push_keeps_changes_of_users(stage: Stage) -> None:
    """A dashboard that a user has made or edited is only overwritten with --yes. Mutant: do not look."""
    name = "shipper-audit-orders"
    assert stage.dashboard("graphite", "--push", stage.web.url, "orders").stdout.startswith("new: ")
    state = stage.ask(f"dashboard/load/{name}")["state"]
    state["graphs"].pop()
    stage.ask(f"dashboard/save/{name}", state=json.dumps(state))
    rejected = stage.dashboard("graphite", "--push", stage.web.url, "orders")
    present = stage.ask(f"dashboard/load/{name}")["state"]
    forced = stage.dashboard("graphite", "--push", stage.web.url, "orders", "--yes")

    assert rejected.returncode == 1
    assert "was changed in graphite-web" in rejected.stderr
    assert present == state
    assert forced.stdout == f"replaced: {stage.web.url}/dashboard/{name}\n"
    assert len(stage.ask(f"dashboard/load/{name}")["state"]["graphs"]) == 3


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.0 500 Oops\r\n\r\n", "HTTP 500 Oops"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>", "the answer is not JSON"),
        (b"HTTP/1.0 200 OK\r\n\r\n[1]", "does not come from graphite-web"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"error": "Must be logged in"}', "Must be logged in"),
        (b'HTTP/1.0 200 OK\r\n\r\n{"error": "does not exist, but who are you?"}', "who are you?"),  # load, then save
        (None, "refused"),
    ],
)
def test_push_to_another_server(stage: Stage, answer: bytes | None, reason: str) -> None:
    """A server that is not graphite-web is an error with a remedy, and no traceback."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port = server.getsockname()[1]

        def serve() -> None:
            for _ in range(2 if b"who are you" in (answer or b"") else 1):
                connection, _ = server.accept()
                connection.recv(65536)
                connection.sendall(answer or b"")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):  # closed with something unread, it would be reset
                    pass
                connection.close()

        thread = threading.Thread(target=serve)
        if answer is not None:
            thread.start()
        else:
            server.close()
        ended = stage.dashboard("graphite", "--push", f"http://127.0.0.1:{port}")
        if answer is not None:
            thread.join()

    assert ended.returncode == 1
    assert reason in ended.stderr
    assert "hint: " in ended.stderr
    assert "Traceback" not in ended.stderr


def test_mistakes(stage: Stage) -> None:
    """Wrong arguments are errors: a push to Grafana, a file as address, a read-only directory, an unknown job."""
    for arguments, code, said in (
        (("grafana", "--push", "http://x"), 2, "for `grafana` use -d DIR"),
        (("graphite", "--push", "file:///etc/passwd"), 2, "an address such as http"),
        (("graphite", "-d", "/proc/x"), 78, "write to /proc/x"),
        (("graphite", "ordrs"), 78, "The jobs are: logins, failed_logins, orders, exports."),
        (("grafna",), 2, "grafna"),
    ):
        ended = stage.dashboard(*arguments)
        assert (ended.returncode, ended.stdout) == (code, ""), ended.stderr
        assert said in ended.stderr
