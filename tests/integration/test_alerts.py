"""Alerts in a real Prometheus: each fires when the running service gets into its state, and ends afterwards."""

import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import Any
from urllib.request import urlopen

import pytest
from graphite_web import GraphiteWeb
from handbook import FOLDER, anchors
from harness import EVENTS, Shipper, shipper, wait_for
from prometheus_client.parser import text_string_to_metric_families
from reports import LEADING, audited, report, troubled
from servers import SCHEMAS, free_port, program

from shipper.demo.carbon_cache import CarbonCache
from shipper.service.control import ask
from shipper.status.alerts import ALERTS, rules
from shipper.status.page.prometheus import metrics

OTHER = EVENTS.replace("events", "other").replace("audit_trail", "other")
QUICK = """\
global: { scrape_interval: 200ms, evaluation_interval: 200ms }
rule_files: [rules.yml]
scrape_configs:
- job_name: shipper
  static_configs: [{ targets: ["127.0.0.1:PORT"] }]
"""
SHORTER = ((r"for: [1-9]\d*m", "for: 400ms"), (r"\[15m\]", "[2s]"), (r"4 \* 3600", "1"))
"""Durations of the rules, and what the tests have in their place."""


class Prometheus:
    """A Prometheus that scrapes one shipper, with the rules and short durations."""

    def __init__(self, folder: Path, port: int) -> None:
        folder.mkdir()
        text = shipper("admin", "alerts", "--handbook", "handbook").stdout
        for long, short in SHORTER:
            text, times = re.subn(long, short, text)
            assert times, long
        (folder / "rules.yml").write_text(text)
        (folder / "prometheus.yml").write_text(QUICK.replace("PORT", str(port)))
        self._port = free_port()
        options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
        options += [f"--web.listen-address=127.0.0.1:{self._port}", "--log.level=warn"]
        with (folder / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen([program("prometheus", "prometheus"), *options], stdout=log, stderr=log)
        wait_for(self._answers, "Prometheus")

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def ask(self, path: str) -> Any:
        """Return the answer of its API."""
        with urlopen(f"http://127.0.0.1:{self._port}/api/v1/{path}", timeout=30) as answer:
            return json.load(answer)["data"]

    def firing(self) -> dict[str, list[str]]:
        """Return the links of the alerts that fire, by the alert's name."""
        firing: dict[str, list[str]] = {}
        for alert in self.ask("alerts")["alerts"]:
            if alert["state"] == "firing":
                firing.setdefault(alert["labels"]["alertname"], []).append(alert["annotations"]["runbook_url"])
        return firing

    def _answers(self) -> bool:
        try:
            return bool(self.ask("rules")["groups"])
        except OSError:
            assert self._process.poll() is None
            return False


class Stage:
    """A shipper on SQLite, its Carbon, and a Prometheus."""

    def __init__(self, folder: Path) -> None:
        self.database, self.port = folder / "app.db", free_port()
        self.created_at = "datetime('now')"
        """Time of a row that is written, as SQL."""
        for table in ("audit_trail", "other"):
            self.execute(SCHEMAS["sqlite"].replace("audit_trail", table))
        self.slot = int(time.time()) // 60 * 60 - 300
        """Slot of a row that is older than all others."""
        self.write(created_at=f"datetime({self.slot}, 'unixepoch')")
        self.carbon = CarbonCache(folder / "carbon", retentions="1m:1d")
        self.web = GraphiteWeb(folder, root=folder / "carbon")
        self.app = Shipper(folder, url=f"sqlite:///{self.database}", port=self.carbon.port, jobs=EVENTS + OTHER)
        self.config = self.app.config.read_text().replace(
            "[source.app]", f'render_url = "{self.web.url}"\n[source.app]'
        )
        self.config += f'[audit]\ncron = "0 0 1 1 *"\nspan = "1h"\n[status]\nlisten = "127.0.0.1:{self.port}"\n'
        self.app.config.write_text(self.config)
        self.prometheus = Prometheus(folder / "prometheus", self.port)
        self.carbon.start()
        self.web.start()
        self.app.start()

    def close(self) -> None:
        """End all of it."""
        self.prometheus.stop()
        assert self.app.stop() == 0
        self.web.stop()
        self.carbon.close()

    def execute(self, statement: str) -> int:
        """Change the database; return the id of the last row that was inserted."""
        with closing(connect(self.database, timeout=30)) as connection, connection:
            return connection.execute(statement).lastrowid or 0

    def write(self, table: str = "audit_trail", created_at: str | None = None) -> int:
        """Commit a row, and return its id; its time is SQL."""
        return self.execute(
            f"INSERT INTO {table} (created_at, action) VALUES ({created_at or self.created_at}, 'login')"
        )

    def page(self) -> str:
        """Return the metrics of the running service."""
        with urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text: str = answer.read().decode()
        return text

    def audit(self) -> str:
        """Let the service audit its job, and return the outcome."""
        answer = ask(f"{self.app.folder}/control.sock", "audit", {"jobs": ["events"]}, timeout=120)
        outcome: str = answer["jobs"]["events"]
        return outcome

    def reload(self, config: str) -> None:
        """Let the service load another configuration."""
        self.app.config.write_text(config)
        os.kill(self.app.pid, signal.SIGHUP)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run all servers once for all alerts."""
    stage = Stage(tmp_path_factory.mktemp("stage"))
    yield stage
    stage.close()


Mend = Callable[[], object]


def _stop(stage: Stage) -> Mend:
    assert stage.app.stop() == 0
    return stage.app.start


def _kill_carbon(stage: Stage) -> Mend:
    stage.carbon.stop(signal.SIGKILL)
    return stage.carbon.start


def _empty_table(stage: Stage) -> Mend:
    newest = max(stage.write("other") for _ in range(3))
    wait_for(lambda: f'shipper_job_watermark{{job_name="other"}} {newest}\n' in stage.page(), "its rows")
    stage.execute("DELETE FROM other")
    return lambda: stage.app.call("reset", "other", "--emptied", "--yes").check_returncode()


def _pause(stage: Stage) -> Mend:
    stage.app.call("pause", "events").check_returncode()
    return lambda: stage.app.call("resume", "events").check_returncode()


def _break_file(stage: Stage) -> Mend:
    stage.reload(stage.config + "nonsense = 1\n")
    return lambda: stage.reload(stage.config)


def _fill_disk(stage: Stage) -> Mend:
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(stage.app.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    return lambda: resource.prlimit(stage.app.pid, resource.RLIMIT_FSIZE, unlimited)


def _write_bad_rows(stage: Stage) -> Mend:
    good, stage.created_at = stage.created_at, "NULL"
    return lambda: setattr(stage, "created_at", good)


def _lose_graphite(stage: Stage) -> Mend:
    stage.reload(stage.config.replace(stage.web.url, f"http://127.0.0.1:{free_port()}"))
    return lambda: stage.reload(stage.config)


def _falsify(stage: Stage) -> Mend:
    path = "audit.events.login.count"
    wait_for(lambda: stage.carbon.sums().get(path, {}).get(stage.slot) == 1, "the oldest row in Graphite")
    with socket.create_connection(("127.0.0.1", stage.carbon.port)) as carbon:
        carbon.sendall(f"{path} 7 {stage.slot}\n".encode())
    wait_for(lambda: stage.audit() == "different", "a difference")

    def correct() -> None:
        stage.app.call("reconcile", "events", "--fix", "--yes").check_returncode()
        wait_for(lambda: stage.audit() == "equal", "equality")

    return correct


STATES: dict[str, Callable[[Stage], Mend]] = {
    "ShipperDown": _stop,
    "ShipperJobStale": _kill_carbon,
    "ShipperJobHeld": _empty_table,
    "ShipperJobPaused": _pause,
    "ShipperConfigRejected": _break_file,
    "ShipperStateDisk": _fill_disk,
    "ShipperRowsRejected": _write_bad_rows,
    "ShipperUnproven": _lose_graphite,
    "ShipperAuditDiffers": _falsify,
}
"""How the service gets into the state of each alert; the result is called to end it."""
OF_TWO_MACHINES = ("ShipperNoLeader", "ShipperLeaseLost")
"""Alerts that no service with a file has: see `test_durations`, and for the metrics `test_two_machines.py`."""


@pytest.mark.parametrize("name", STATES)
def test_alert(stage: Stage, name: str) -> None:
    """The alert fires while the service is in its state, and leads to a heading of the handbook; then it ends."""
    wait_for(lambda: name not in stage.prometheus.firing(), "no alert")
    links: list[str] = []

    def fires() -> bool:
        stage.write()  # so that there is something to count
        links[:] = stage.prometheus.firing().get(name, [])
        return bool(links)

    mend = STATES[name](stage)
    try:
        wait_for(fires, name)
        page, _, anchor = links[0].removeprefix("handbook/").partition("#")
    finally:
        mend()
    wait_for(lambda: not fires(), f"the end of {name}")

    assert anchor in anchors(FOLDER / page)


def test_every_alert_fires(stage: Stage) -> None:
    """No alert is left out, and Prometheus can evaluate each."""
    groups = stage.prometheus.ask("rules")["groups"]

    assert {rule["name"]: rule.get("lastError", "") for rule in groups[0]["rules"]} == dict.fromkeys(
        (alert.name for alert in ALERTS), ""
    )
    assert {alert.name for alert in ALERTS} == {*STATES, *OF_TWO_MACHINES}


COUNTERS = (
    ("shipper_job_rows_total", "other"),
    ("shipper_job_rejected_rows_total", "other", "no_time"),
    ("shipper_job_datapoints_total", "other"),
    ("shipper_job_capture_duration_seconds_count", "other"),
    ("shipper_deliveries_total",),
)


def test_counters(stage: Stage) -> None:
    """Counters grow by what the service did. Mutant: leave one of them out."""

    def grown() -> list[float]:
        families = text_string_to_metric_families(stage.page())
        values = {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}
        return [values[name] - before.get(name, 0) for name in COUNTERS]

    before: dict[tuple[str, ...], float] = {}
    before = dict(zip(COUNTERS, grown(), strict=True))
    for created_at in (stage.created_at, stage.created_at, "NULL"):
        stage.write("other", created_at)
    wait_for(lambda: min(grown()) > 0, "all counters")

    assert grown()[:2] == [3, 1]


def promtool(*arguments: str, given: str = "") -> tuple[int, str]:
    """Run promtool, and return its exit code and its output."""
    command = [program("promtool", "prometheus"), *arguments]
    ended = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_names_of_metrics(stage: Stage) -> None:
    """Names, types and help follow Prometheus' conventions, in every situation. Mutant: a gauge named `_total`."""
    for text in (stage.page(), *map(metrics, (report(**LEADING), troubled(), audited()))):
        assert promtool("check", "metrics", given=text) == (0, "")


@pytest.mark.parametrize(
    ("name", "series", "minute"),
    [
        # late for five minutes, then failing
        ("ShipperJobStale", {"job_state{state='late'}": "0 1x4 0x20", "job_state{state='failing'}": "0x5 1x20"}, 11),
        ("ShipperJobHeld", {"job_state{state='stopped'}": "0 1x9"}, 2),
        ("ShipperJobPaused", {"job_paused_timestamp_seconds": "0x300"}, 241),
        # as much as the state and 100 MB, then less
        ("ShipperStateDisk", {"state_free_bytes": "3e8 2.9e8x9", "state_bytes": "2e8x9"}, 2),
        ("ShipperRowsRejected", {"job_rejected_rows_total": "7 8x9"}, 1),
        ("ShipperUnproven", {"endpoint_consecutive_failures{endpoint='graphite'}": "0 1+1x20"}, 16),
        ("ShipperAuditDiffers", {"job_audit_different_slots": "0 2x9"}, 1),
        ("ShipperAuditDiffers", {"job_audit_successful": "1 0x9"}, 1),
        ("ShipperNoLeader", {"leader{instance='a'}": "1 0x9", "leader{instance='b'}": "0x9"}, 3),
        # the new leader has the new term first
        ("ShipperLeaseLost", {"term{instance='a'}": "4 4 7x9", "term{instance='b'}": "4 6 6 8x9"}, 3),
    ],
)
def test_durations(name: str, series: dict[str, str], minute: int, tmp_path: Path) -> None:
    """With a value a minute, the rule as it is printed fires at a minute, and not at the one before."""
    (tmp_path / "rules.yml").write_text(rules())
    firing = f"count(ALERTS{{alertname='{name}', alertstate='firing'}}) or vector(0)"
    samples = [
        {"expr": firing, "eval_time": f"{at}m", "exp_samples": [{"labels": "{}", "value": value}]}
        for at, value in ((minute - 1, 0), (minute, 1))
    ]
    given = [{"series": f"shipper_{one}", "values": values} for one, values in series.items()]
    test = {"interval": "1m", "input_series": given, "promql_expr_test": samples}
    (tmp_path / "test.yml").write_text(json.dumps({"rule_files": ["rules.yml"], "tests": [test]}))

    for command, file in (("check", "rules.yml"), ("test", "test.yml")):
        code, shown = promtool(command, "rules", f"{tmp_path}/{file}")
        assert code == 0, shown
