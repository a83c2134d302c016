"""How quickly lines reach a real carbon-cache."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from builders import points
from ground import Ground
from measured import Measured
from processes import cpu_of

from shipper.demo.carbon_cache import CarbonCache
from shipper.graphite.carbon import Carbon

BATCH = 2500  # lines: [graphite] batch, as it is unless somebody says otherwise
RETENTIONS = "1m:10m"  # how long a series is kept is nothing to who receives
REST_SECONDS = 0.3  # a carbon that has used no processor for so long has written all
TIMEOUT_SECONDS = 120


def delivery(ground: Ground) -> list[Measured]:
    """Lines for series that there are, into a carbon-cache: in confirmed batches, and by one sendall on one socket."""
    series = ground.sizes.series
    with _carbon(ground.folder / "carbon") as (port, rest):

        def timed(send: Callable[[int, list[bytes]], None]) -> float:
            lines = [b"bench.series%d.count %d %d\n" % (n, n, time.time()) for n in range(series)]
            rest()
            began = time.perf_counter()
            send(port, lines)
            return time.perf_counter() - began

        timed(_raw)  # which makes them
        found = ground.compare(
            {"ours": partial(timed, _ours), "raw": partial(timed, _raw)}, rounds=ground.sizes.slow_rounds
        )
    ours, raw = series / found["ours"], series / found["raw"]
    return [Measured(f"{series:,} lines", ours, "raw socket", raw, "lines/s", 1 / 0.8, more_is_better=True)]


def _ours(port: int, lines: list[bytes]) -> None:
    carbon = Carbon("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    for first in range(0, len(lines), BATCH):
        carbon.deliver(points(b"".join(lines[first : first + BATCH])))
    carbon.close()


def _raw(port: int, lines: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_SECONDS) as connection:
        connection.sendall(b"".join(lines))
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""  # it has read all


@contextmanager
def _carbon(root: Path) -> Iterator[tuple[int, Callable[[], None]]]:
    """Run a carbon-cache; yield its port, and a call that waits until it rests."""
    cache = CarbonCache(root, retentions=RETENTIONS)
    try:
        cache.start()
        assert cache._process

        yield cache.port, partial(_rest, cache._process.pid)
    finally:
        cache.close()


def _rest(pid: int) -> None:
    used = -1.0
    while (now := cpu_of(pid)) > used:
        used = now
        time.sleep(REST_SECONDS)
