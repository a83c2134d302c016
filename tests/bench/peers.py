"""Programs by others that count in a database too; each is a contender only where it is installed.

Strategy: they keep no position. Each query counts the newest rows, again and again, as one would configure it; so what
is compared is not what they promise but what they use for a query, against what a tick of ours uses: processor time,
memory, and the time from their start to their first full result. collectd writes to Graphite, the exporters are
scraped. How many queries they have run is what the server says, and that each brought its metrics is checked.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from ground import HERE, Ground
from processes import LOOK_SECONDS, Service
from servers import free_port

ENVIRONMENT = HERE.parents[1] / ".venv-peers"
STATEMENT = """\
SELECT action, COUNT(*) AS {value} FROM audit_trail
WHERE id > (SELECT MAX(id) FROM audit_trail) - {rows} GROUP BY action"""
COLLECTD_QUERY = """\
  <Query "q{n}">
    Statement "{statement}"
    <Result>
      Type "gauge"
      InstancePrefix "q{n}"
      InstancesFrom "action"
      ValuesFrom "value"
    </Result>
  </Query>"""
ONCE = 3600  # seconds between queries of which only the first is of interest
ACTIONS = 20
PATIENCE_SECONDS = 120.0
UNSENT_LINES = 50  # write_graphite sends packets of 1,428 bytes, and what is left when it ends


class Asked(NamedTuple):
    """What a peer is to do: so many queries, how often, seconds, each over so many of the newest rows."""

    queries: int
    every: int
    rows: int


class Peer(NamedTuple):
    """One of them."""

    name: str
    program: Path
    command: Callable[[Ground, Asked, int], list[str]]
    """Writes its configuration, and returns what runs it, on a port if it is scraped."""
    is_scraped: bool


def available(ground: Ground) -> Iterator[Peer]:
    """Find those that are installed, having installed them if that is wanted; say why one is left out."""
    for peer in PEERS:
        why = "not installed"
        if not peer.program.exists() and ground.installs_peers:
            done = subprocess.run([HERE / "install-peer", peer.name], capture_output=True, text=True, check=False)
            why = (done.stderr.strip().splitlines() or ["not installed"])[-1]
        if peer.program.exists():
            yield peer
        else:
            print(f"{peer.name} is left out: {why}", file=sys.stderr)


@contextmanager
def running(peer: Peer, ground: Ground, asked: Asked) -> Iterator[Service]:
    """Run a peer, and see that it brings what it is asked for."""
    port, before = free_port(), ground.lines()
    with Service(peer.command(ground, asked, port), ground.folder / f"{peer.name}.log") as service:
        yield service
        service.check()
        found = _scraped(port) if peer.is_scraped else ground.lines() - before + UNSENT_LINES
        assert found >= asked.queries * min(asked.rows, ACTIONS), f"{peer.name} brought only {found}: {service.text()}"


def cpu_of_query(peer: Peer, ground: Ground, asked: Asked, doing: Callable[[], None]) -> float:
    """Return how much processor time a query takes, seconds."""
    with running(peer, ground, asked) as service:
        service.wait(ground.sizes.warm, doing)
        before, cpu = ground.work("peer"), service.cpu()
        service.wait(ground.sizes.seconds, doing)
        cpu = service.cpu() - cpu
        return cpu / max(ground.work("peer").since(before).statements, 1)


def first_result(peer: Peer, ground: Ground, series: int) -> float:
    """Return the seconds from the start of a peer to its first result: a query with so many series."""
    asked, port, before = Asked(queries=1, every=ONCE, rows=series), free_port(), ground.lines()
    command = peer.command(ground, asked, port)
    began = time.perf_counter()
    with Service(command, ground.folder / f"{peer.name}.log") as service:
        while (_scraped(port) if peer.is_scraped else ground.lines() - before + UNSENT_LINES) < series:
            service.check()
            assert time.perf_counter() - began < PATIENCE_SECONDS, service.text()
            time.sleep(LOOK_SECONDS)
        return time.perf_counter() - began


def _scraped(port: int) -> int:
    """Return how many of our metrics an exporter shows; none while it does not answer yet."""
    connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().count(b'{action="')
    except ConnectionRefusedError:
        return 0
    finally:
        connection.close()


def _collectd(ground: Ground, asked: Asked, _: int) -> list[str]:
    statement = " ".join(STATEMENT.format(value="value", rows=asked.rows).split())
    numbers = range(asked.queries)
    text = (
        (HERE / "contenders/collectd.conf")
        .read_text()
        .format(
            folder=ground.folder,
            every=asked.every,
            mysql=ground.mysql.port,
            database=ground.database,
            port=ground.port,
            queries="\n".join(COLLECTD_QUERY.format(n=n, statement=statement) for n in numbers),
            chosen="\n".join(f'    Query "q{n}"' for n in numbers),
        )
    )
    file = ground.folder / "collectd.conf"
    file.write_text(text)
    return ["/usr/sbin/collectd", "-f", "-C", str(file)]


def _query_exporter(ground: Ground, asked: Asked, port: int) -> list[str]:
    names = [f"q{n}" for n in range(asked.queries)]
    query = {"interval": asked.every, "databases": ["bench"]}
    url = f"mysql+pymysql://peer@127.0.0.1:{ground.mysql.port}/{ground.database}"
    file = ground.folder / "query-exporter.yaml"
    file.write_text(
        json.dumps(  # which is YAML, too
            {
                "databases": {"bench": {"dsn": url, "connection-pool": {"size": 4}}},
                "metrics": {name: {"type": "gauge", "labels": ["action"]} for name in names},
                "queries": {
                    name: query | {"metrics": [name], "sql": STATEMENT.format(value=name, rows=asked.rows)}
                    for name in names
                },
            }
        )
    )
    listen = ["--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    return [f"{ENVIRONMENT}/bin/query-exporter", *listen, "--config", str(file)]


def _sql_exporter(ground: Ground, asked: Asked, port: int) -> list[str]:
    statement = STATEMENT.format(value="counted", rows=asked.rows)
    query = {"help": "counted", "labels": ["action"], "values": ["counted"], "query": statement}
    job = {
        "name": "bench",
        "interval": f"{asked.every}s",
        "connections": [f"mysql://peer@tcp(127.0.0.1:{ground.mysql.port})/{ground.database}"],
        "queries": [query | {"name": f"q{n}"} for n in range(asked.queries)],
    }
    file = ground.folder / "sql-exporter.yml"
    file.write_text(json.dumps({"jobs": [job]}))
    program = f"{ENVIRONMENT}/usr/bin/prometheus-sql-exporter"
    return ["env", "LOGLEVEL=warn", program, "-config.file", str(file), "-web.listen-address", f"127.0.0.1:{port}"]


PEERS = (
    Peer("collectd", Path("/usr/sbin/collectd"), _collectd, is_scraped=False),
    Peer("query-exporter", ENVIRONMENT / "bin/query-exporter", _query_exporter, is_scraped=True),
    Peer("sql-exporter", ENVIRONMENT / "usr/bin/prometheus-sql-exporter", _sql_exporter, is_scraped=True),
)
