"""What all contenders work on: a MariaDB with a table, something that reads as carbon does, a folder."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

HERE = Path(__file__).parent
SETTLE_SECONDS = 1.0  # a pass waits for so long until it reads: that is what is asked of it, and no work
sys.path.insert(0, str(HERE.parent))
from servers import MariaDB  # noqa: E402 - of the directory above

CONFIG = """\
[state]
path = "{folder}/shipper.db"

[graphite]
port = {port}
retentions = "1m:30d"

[status]
listen = "off"

[limits]
series = 100000

[source.app]
url = "mysql+pymysql://root@127.0.0.1:{mysql}/{database}"
settle = "{settle}"

[defaults]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
start = "{start}"
every = "{every}"
"""
JOB = '[job.bench{n}]\nname = "bench{n}.{{action}}.{{measure}}"\n'


class Sizes(NamedTuple):
    """How much work there is."""

    rounds: int = 9
    rows: int = 1_000_000
    tick: int = 10_000
    series: int = 50_000
    scale: tuple[int, int] = (100_000, 10_000_000)
    jobs: int = 500
    warm: int = 30
    seconds: int = 20


SMOKE = Sizes(rounds=1, rows=1000, tick=100, series=200, scale=(100, 1000), jobs=5, warm=2, seconds=1)


@dataclass
class Ground:
    """The servers and the folder of one scenario."""

    folder: Path
    mysql: MariaDB
    port: int
    """Of the sink."""
    sizes: Sizes
    _sink: "subprocess.Popen[str]"
    database: str = "bench"

    def table(self, rows: int, *, actions: int = 20, seconds: int = 86_400) -> None:
        """Make the table anew, with so many rows of so many actions, over so many seconds up to now."""
        self.mysql.make_database(self.database)
        self.insert(rows, actions=actions, seconds=seconds)

    def insert(self, rows: int, *, actions: int = 20, seconds: int = 60) -> None:
        """Add rows behind, with an id after the other, as single inserts have them."""
        if not rows:
            return
        with self.mysql.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO audit_trail (id, created_at, action, outcome) "
                f"SELECT newest + seq, UTC_TIMESTAMP(6) - INTERVAL FLOOR({seconds} * (1 - seq / {rows})) SECOND, "
                f"CONCAT('action', seq % {actions}), 'ok' FROM seq_1_to_{rows}, "
                "(SELECT COALESCE(MAX(id), 0) AS newest FROM audit_trail) AS there"
            )

    def lines(self) -> int:
        """Return how many lines the sink has had."""
        assert self._sink.stdin
        assert self._sink.stdout
        self._sink.stdin.write("\n")
        self._sink.stdin.flush()
        return int(self._sink.stdout.readline())

    def configure(self, *, jobs: int = 1, settle: str = "1s", every: str = "1s", start: str = "beginning") -> None:
        """Write shipper's configuration."""
        servers = {"port": self.port, "mysql": self.mysql.port, "database": self.database}
        text = CONFIG.format(folder=self.folder, **servers, settle=settle, every=every, start=start)
        (self.folder / "shipper.toml").write_text(text + "".join(JOB.format(n=n) for n in range(jobs)))

    def shipper(self, *arguments: str) -> list[str]:
        """Return the command of shipper."""
        return [sys.executable, "-m", "shipper.cli", *arguments, "--config", str(self.folder / "shipper.toml")]

    def bare(self, *loop: int) -> list[str]:
        """Return that of the floor."""
        where = ("127.0.0.1", str(self.mysql.port), self.database, str(self.port), f"{self.folder}/bare.db")
        return [sys.executable, str(HERE / "contenders/bare.py"), *where, *map(str, loop)]

    def seed(self, *loop: int) -> list[str]:
        """Return that of the classic script."""
        url = f"mysql+pymysql://root@127.0.0.1:{self.mysql.port}/{self.database}?charset=utf8mb4"
        where = (url, str(self.port), f"{self.folder}/seed.db")
        return [sys.executable, str(HERE / "contenders/seed.py"), *where, *map(str, loop)]

    def sqlclient(self, after: int) -> list[str]:
        """Return that of the C client with the same SELECT."""
        statement = (
            "SELECT FLOOR(UNIX_TIMESTAMP(created_at) / 60) * 60, action, COUNT(*) FROM audit_trail "
            f"WHERE id > {after} GROUP BY 1, 2"
        )
        login = ("-h127.0.0.1", f"-P{self.mysql.port}", "-uroot", "--skip-ssl", self.database)
        return ["mariadb", "--no-defaults", *login, "-N", "-e", statement]

    def compare(self, contenders: Mapping[str, Callable[[], float]]) -> dict[str, float]:
        """Let all take turns, and return the median of each."""
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(self.sizes.rounds):
            for name in list(contenders) if turn % 2 else reversed(list(contenders)):
                found[name].append(contenders[name]())
        return {name: statistics.median(values) for name, values in found.items()}

    def forget(self) -> None:
        """Remove what the contenders have stored."""
        for file in self.folder.glob("*.db*"):
            file.unlink()


@contextmanager
def ground(sizes: Sizes) -> Iterator[Ground]:
    """Start the servers; at the end they are no more."""
    with TemporaryDirectory(prefix="shipper-bench-") as folder:
        mysql = MariaDB(Path(folder) / "mariadb", ["--innodb-buffer-pool-size=1G"])
        sink = subprocess.Popen(
            [sys.executable, str(HERE / "sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert sink.stdout
            yield Ground(Path(folder), mysql, int(sink.stdout.readline()), sizes, sink)
        finally:
            sink.communicate()
            mysql.stop()


def run(command: list[str]) -> float:
    """Run a command to its end, and return the seconds that it took; of shipper without those that it settled."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return seconds - SETTLE_SECONDS if "once" in command else seconds
