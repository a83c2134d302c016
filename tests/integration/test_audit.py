"""Audits of the running service: a real MariaDB, a real Carbon and graphite-web."""

import re
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from builders import points
from graphite_web import GraphiteWeb
from harness import Shipper, wait_for
from prometheus_client.parser import text_string_to_metric_families
from servers import MariaDB, free_port

from shipper.core.errors import ReadbackFailed
from shipper.core.model import Span
from shipper.core.paths import node
from shipper.demo.carbon_cache import CarbonCache
from shipper.graphite.carbon import Carbon
from shipper.graphite.render_api import Readback
from shipper.service.control import ask

ROW = """
    INSERT INTO audit_trail (created_at, action, outcome)
    VALUES (UTC_TIMESTAMP() - INTERVAL %s MINUTE, 'login', 'ok')"""
MINUTES = [*range(3, 13)] * 2  # two rows in each of ten minutes


@pytest.fixture
def app(
    tmp_path: Path, database: str, mariadb: MariaDB, graphite: tuple[CarbonCache, GraphiteWeb]
) -> Iterator[Shipper]:
    """Run a service whose rows are in Graphite, with a page, and an audit once a year."""
    cache, web = graphite
    with mariadb.connect("app") as connection, connection.cursor() as cursor:
        cursor.executemany(ROW, [(minutes,) for minutes in MINUTES])
    app = Shipper(tmp_path, url=database, port=cache.port)
    prefix = f'prefix = "{tmp_path.name}"\nrender_url = "{web.url}"'
    text = app.config.read_text().replace('prefix = "audit"', prefix)
    text = text.replace('retentions = "1m:1d"', 'retentions = "1m:1d,1h:30d"')
    text += f'[audit]\ncron = "0 0 1 1 *"\n\n[status]\nlisten = "127.0.0.1:{free_port()}"\n'
    app.config.write_text(text)
    app.start()
    wait_for(lambda: sum(values(app, web).values()) == len(MINUTES), "all rows in Graphite")
    wait_for(lambda: asked(app, "status")["is_ready"], "healthy")
    yield app
    app.stop()
    assert "Traceback" not in app.text()


def values(app: Shipper, web: GraphiteWeb, name: str = "events.login.count") -> dict[int, float]:
    """Return what Graphite has of a series of the last quarter of an hour, by slot."""
    path, now = f"{app.folder.name}.{name}", int(time.time()) // 60 * 60
    with suppress(ReadbackFailed):  # carbon is creating the file
        for _, data in Readback(web.url, timeout=30).held([path], Span(now - 900, now + 120), 60):
            return {slot: value for slot, value in data.items() if value}
    return {}


def asked(app: Shipper, command: str, **arguments: Any) -> dict[str, Any]:
    """Return the service's answer to a command."""
    answer: dict[str, Any] = ask(f"{app.folder}/control.sock", command, arguments, timeout=120)
    return answer


def audit(app: Shipper) -> tuple[str | None, dict[str, Any], dict[str, Any]]:
    """Run an audit; return its outcome, the job's result, and the report of the service."""
    outcome = asked(app, "audit", jobs=[])["jobs"].get("events")
    report = asked(app, "status")
    return outcome, report["jobs"][0]["audit"], report


def get(app: Shipper, path: str) -> str:
    """Return a page of the service."""
    (port,) = re.findall(r'listen = "127.0.0.1:(\d+)"', app.config.read_text())
    with closing(HTTPConnection("127.0.0.1", int(port), timeout=30)) as connection:
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def metrics(app: Shipper) -> dict[str, float]:
    """Return the audit's metrics as Prometheus reads them."""
    families = text_string_to_metric_families(get(app, "/metrics"))
    samples = [one for family in families for one in family.samples if "_audit_" in one.name]
    return {one.name.partition("_audit_")[2]: one.value for one in samples}


def test_audit(app: Shipper, mariadb: MariaDB, graphite: tuple[CarbonCache, GraphiteWeb]) -> None:
    """An audit says equal, then how many slots differ and which rows are missing or surplus, everywhere the same.

    What it finds is unhealthy until another audit finds it equal. Mutants: compare nothing; one sum of both; store no
    result.
    """
    cache, web = graphite
    # equal
    outcome, result, report = audit(app)
    assert (outcome, result["outcome"], report["is_ready"]) == ("equal", "equal", True), result
    assert (result["different"], result["missing"], result["surplus"]) == (0, 0, 0)
    assert 10 <= result["compared"] <= result["requested"]
    assert metrics(app)["different_slots"] == 0

    # one slot lower, one higher
    first, second, *_ = sorted(values(app, web))
    with closing(Carbon("127.0.0.1", cache.port, timeout=10)) as carbon:
        path = f"{app.folder.name}.events.login.count"
        carbon.deliver(points(f"{path} 1 {first}\n{path} 5 {second}\n".encode()))
    wait_for(lambda: [values(app, web).get(slot) for slot in (first, second)] == [1, 5], "changed values")
    outcome, result, report = audit(app)
    assert (outcome, result["outcome"], report["is_ready"]) == ("different", "different", False), result
    assert (result["different"], result["missing"], result["surplus"]) == (2, 1, 3)
    assert (result["start"], result["end"]) == (first, second + 60)
    numbers = {"compared_slots": result["compared"], "different_slots": 2, "missing_rows": 1, "surplus_rows": 3}
    assert metrics(app) == numbers | {"successful": 1, "timestamp_seconds": result["at"]}
    assert "slots differ in Graphite: 1 rows missing, 3 surplus" in get(app, "/")
    assert "audit.differed" in app.events()

    # after a restart, and in Graphite
    assert app.stop() == 0
    app.start()
    assert "Graphite differs: events" in asked(app, "status")["verdict"]
    for name, number in (("different", 2), ("missing", 1), ("surplus", 3)):
        own = f"shipper.{node(report['host'])}.events.audit_{name}"
        wait_for(lambda own=own, number=number: number in values(app, web, own).values(), own)  # type: ignore[misc]

    # corrected with the command that it names
    (hint,) = re.findall(r"`(shipper reconcile [^`]*)`", report["jobs"][0]["audit_failure"]["hint"])
    assert app.call("reconcile", *hint.split()[2:], "--fix", "--yes").returncode == 0
    again = app.call("admin audit", "events")
    assert (again.returncode, again.stdout) == (0, "events: equal\n")
    assert "Graphite differs" not in asked(app, "status")["verdict"]


def test_audit_that_is_not_possible(app: Shipper) -> None:
    """Without an answer of Graphite, an audit is failed, has no numbers, and is never equal, also without a service.

    A paused job is left out; without a schedule there are neither audits nor old results. Mutants: keep the numbers of
    the audit before; audit paused jobs; say that none differs if none was compared.
    """
    assert audit(app)[0] == "equal"
    text = app.config.read_text()
    app.config.write_text(re.sub(r'render_url = "[^"]*"', f'render_url = "http://127.0.0.1:{free_port()}"', text))
    asked(app, "reload")
    outcome, result, report = audit(app)
    assert (outcome, result["outcome"], "refused" in result["error"]) == ("failed", "failed", True)
    assert metrics(app) == {"successful": 0, "timestamp_seconds": result["at"]}
    assert "audit failed: events" in report["verdict"]
    assert app.call("admin audit").returncode == 1
    assert app.call("pause", "events").returncode == 0
    assert audit(app)[0] is None
    alone = app.call("admin audit", "events")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr.startswith("events: not compared, because it is paused or held")

    assert app.stop() == 0
    assert re.search(r"\nevents +failed +- ", app.call("status").stdout)
    app.configure('cron = "0 0 1 1 *"', "")
    app.start()
    refused = app.call("admin audit")
    assert (refused.returncode, "hint: Set cron in [audit]" in refused.stderr) == (78, True)
    assert asked(app, "status")["jobs"][0]["audit"] is None
