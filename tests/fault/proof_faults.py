"""Losses after a confirmation: series that Carbon does not create, a relay that loses its queue."""

import os
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from fault.running import fault
from fault.score import Score
from fault.stage import Stage
from graphite_web import GraphiteWeb
from harness import EVENTS
from servers import free_port, sequence

CREATES_PER_MINUTE = 50
SERIES, SOAK_SERIES = 120, 300
PATIENCE_SECONDS = 600.0
WIDE = "SELECT UTC_TIMESTAMP(6), CONCAT('action', seq), 'success' FROM {numbers}"

_RELAY = """\
[relay]
USER =
LOG_DIR = {folder}
PID_DIR = {folder}
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {port}
PICKLE_RECEIVER_PORT = 0
RELAY_METHOD = consistent-hashing
REPLICATION_FACTOR = 1
DESTINATIONS = 127.0.0.1:{backend}:a
MAX_QUEUE_SIZE = 20
CARBON_METRIC_INTERVAL = 0
"""


@fault(is_long=True, jobs=EVENTS + "zeros = false\n", step=60, retentions="1m:1d")
def creates_limited(stage: Stage) -> list[Score]:
    """Limit Carbon's new series per minute to its default. Mutant: replay three times, no more."""
    series = SOAK_SERIES if stage.soak_seconds else SERIES
    conf = stage.app.folder / "carbon/conf/carbon.conf"
    stage.carbon.stop()
    limit = f"MAX_CREATES_PER_MINUTE = {CREATES_PER_MINUTE}"
    conf.write_text(conf.read_text().replace("MAX_CREATES_PER_MINUTE = inf", limit))
    stage.carbon.start()
    with closing(stage.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO audit_trail (created_at, action, outcome) {WIDE.format(numbers=sequence(series))}")
    stage.app.start()
    note = f"{series} new series, {CREATES_PER_MINUTE} a minute"
    return [stage.finish("Carbon: creates limited", 1, note, seconds=PATIENCE_SECONDS)]


@fault(is_long=True)
def relay_loses_its_queue(stage: Stage) -> list[Score]:
    """Let a relay drop datapoints when its queue is full, and kill it with its queue. Mutant: believe the relay."""
    pickle = free_port()
    stage.carbon.stop()
    web = GraphiteWeb(stage.app.folder, root=stage.app.folder / "carbon")
    conf = stage.app.folder / "carbon/conf/carbon.conf"
    conf.write_text(conf.read_text().replace("PICKLE_RECEIVER_PORT = 0", f"PICKLE_RECEIVER_PORT = {pickle}"))
    relay = Relay(stage.app.folder, backend=pickle)
    stage.app.configure("\nreplay =", f'\nproof = "readback"\nrender_url = "{web.url}"\nreplay =')
    stage.app.configure(f"port = {stage.carbon.port}\n", f"port = {relay.port}\n")
    try:
        for end in (stage.carbon, web, relay, stage.app):
            end.start()
        stage.write()
        for is_killed in (True, False):  # only reading back shows the last losses
            stage.wait("delivery.finished")
            stage.carbon.stop()
            for _ in range(3):
                stage.wait("delivery.finished")  # to the relay, which has no Carbon to pass it on to
            if is_killed:
                relay.kill()
                relay.start()
            stage.carbon.start()
        return [stage.finish("relay: full queue, killed with its queue; readback", 2, seconds=PATIENCE_SECONDS)]
    finally:
        web.stop()
        relay.kill()


class Relay:
    """A carbon-relay on a separate port."""

    def __init__(self, folder: Path, *, backend: int) -> None:
        """Write its configuration; backend is the pickle port of the Carbon behind it."""
        self.port = free_port()
        self._folder = folder
        self._conf = folder / "carbon/conf/relay.conf"  # beside the storage schemas, which it reads
        self._conf.write_text(_RELAY.format(folder=folder, port=self.port, backend=backend))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; shipper connects when it listens."""
        pidfile = self._folder / "relay.pid"
        pidfile.unlink(missing_ok=True)  # a killed relay leaves it, and would not start again
        own = Path(sys.executable).with_name("carbon-relay.py")
        program = [sys.executable, str(own)] if own.exists() else [shutil.which("carbon-relay") or "carbon-relay"]
        options = [f"--config={self._conf}", f"--pidfile={pidfile}", "--nodaemon", "start"]
        environment = {**os.environ, "GRAPHITE_ROOT": str(self._folder), "PYTHONUNBUFFERED": "1"}
        with (self._folder / "relay.log").open("ab") as log:
            self._process = subprocess.Popen([*program, *options], stdout=log, stderr=log, env=environment)

    def kill(self) -> None:
        """Kill it, with its queue."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
