"""How long a row takes from its COMMIT to Graphite, and how long the pages of a large service take."""

import socketserver
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection

from daemons import daemon
from ground import Ground
from measured import Measured
from processes import run
from servers import free_port
from typing_extensions import override

P99_SECONDS = 1.5
PAGE_SECONDS, PAGE_MIB = 0.3, 50.0
PAUSE_SECONDS = 0.1  # between two rows
REST_SECONDS = 10.0  # in which the last row is delivered, and all rows of many series
PAGES = ("/", "/metrics")


class _Arrivals(socketserver.StreamRequestHandler):
    """A connection of a receiver that notes when the first line of each path came."""

    seen: dict[str, float]

    @override
    def handle(self) -> None:
        for line in self.rfile:
            self.seen.setdefault(line.decode().split()[0], time.time())


@contextmanager
def _receiver() -> Iterator[tuple[int, dict[str, float]]]:
    """Yield a port, and when each path came there, epoch seconds."""
    seen: dict[str, float] = {}
    handler = type("Handler", (_Arrivals,), {"seen": seen})
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1], seen
        server.shutdown()
        thread.join()


def latency(ground: Ground) -> list[Measured]:
    """Rows of a series each, one by one: from the COMMIT to the line."""
    committed: list[float] = []
    ground.table(1)

    def commit() -> None:
        with ground.mysql.connect(ground.database) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO audit_trail (created_at, action) VALUES (UTC_TIMESTAMP(6), %s)", (f"row{len(committed)}",)
            )
            committed.append(time.time())

    with _receiver() as (port, seen):
        ground.configure(port=port, start="now")
        with daemon(ground) as service:
            service.until("job.started", 1)
            end = time.monotonic() + ground.sizes.seconds
            while time.monotonic() < end:
                commit()
                time.sleep(PAUSE_SECONDS)
            service.wait(REST_SECONDS)
        delays = [seen[f"bench0.row{n}.count"] - at for n, at in enumerate(committed)]
    p99 = statistics.quantiles(delays, n=100, method="inclusive")[98]
    return [Measured(f"from COMMIT to Graphite, p99 of {len(delays)}", p99, "target", P99_SECONDS, "s", 1.0)]


def pages(ground: Ground) -> list[Measured]:
    """The pages and the status of a service with many jobs and very many series; the memory that pages take."""
    jobs, series = ground.sizes.most_jobs, ground.sizes.series_of_job
    ground.table(series, actions=series, seconds=1)
    port = free_port()
    ground.configure(jobs=jobs, schedule='every = "1h"', listen=f"127.0.0.1:{port}")
    with daemon(ground) as service:
        service.until("capture.finished", jobs)
        service.between_rounds("delivery.finished", lambda: None)
        service.wait(REST_SECONDS)
        before = service.memory()
        asks = {page: partial(_seconds_of, port, page) for page in PAGES}
        found = ground.compare(asks | {"status": partial(run, ground.shipper("status"))})
        more = service.memory() - before
    what = f"{jobs:,} jobs, {jobs * series:,} series"
    times = [Measured(f"{what}: {name}", found[name], "target", PAGE_SECONDS, "s", 1.0) for name in found]
    return [*times, Measured(f"{what}: memory of pages", more, "target", PAGE_MIB, "MiB", 1.0)]


def _seconds_of(port: int, page: str) -> float:
    """Return the seconds until a page is there."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.perf_counter()
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.read()
    finally:
        connection.close()
    return time.perf_counter() - began
