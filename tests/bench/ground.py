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
sys.path.insert(0, str(HERE.parent))
from servers import MariaDB  # noqa: E402 - of the directory above

CONFIG = """\
[state]
path = "{folder}/shipper.db"
{state}

[graphite]
port = {port}
retentions = "1m:30d"
{graphite}

[status]
listen = "{listen}"

[limits]
series = 200000

[source.app]
url = "mysql+pymysql://shipper@127.0.0.1:{mysql}/{database}"
{source}

[defaults]
table = "audit_trail"
id = "id"
time = "created_at"
by = ["action"]
start = "{start}"
{schedule}
"""
JOB = '[job.bench{n}]\nname = "bench{n}.{{action}}.{{measure}}"\ntable = "{table}"\n'
COUNTS = """\
SELECT FLOOR(UNIX_TIMESTAMP(created_at) / 60) * 60, action, COUNT(*) FROM audit_trail
WHERE id > {after} AND id <= {upto} GROUP BY 1, 2"""
"""What is asked of all contenders."""
USERS = ("shipper", "plain", "peer")  # the server tells what each of them has cost it
NOTED_SECONDS = 0.1  # it notes that when an answer is on its way already
ALL = 2**63


class Sizes(NamedTuple):
    """How much work there is."""

    rounds: int = 9
    slow_rounds: int = 5
    slowest_rounds: int = 3
    rows: int = 1_000_000
    tick: int = 10_000
    series: int = 50_000
    scale: tuple[int, int] = (100_000, 10_000_000)
    catchup: tuple[int, int] = (1_000_000, 10_000_000)
    jobs: int = 500
    most_jobs: int = 2000
    series_of_job: int = 100
    day: int = 1_000_000
    few_jobs: int = 50
    totals: tuple[int, int] = (100_000, 1_000_000)
    warm: int = 10
    minute: int = 65
    seconds: int = 20
    together: str = 'every = "10s"'
    days: float = 30
    growth_rows: tuple[int, ...] = (100_000, 1_000_000, 10_000_000)
    growth_series: tuple[int, ...] = (100, 1000, 10_000, 50_000, 200_000)
    growth_jobs: tuple[int, ...] = (1, 10, 100, 500, 2000)


SMOKE = Sizes(
    *(1, 1, 1),
    rows=1000,
    tick=100,
    series=200,
    scale=(100, 1000),
    catchup=(100, 1000),
    jobs=5,
    most_jobs=10,
    series_of_job=2,
    day=100,
    few_jobs=5,
    totals=(100, 1000),
    warm=0,
    minute=0,
    seconds=1,
    together='every = "1s"',
    days=0.1,
    growth_rows=(100, 1000),
    growth_series=(10, 100),
    growth_jobs=(1, 5),
)


class Ids(NamedTuple):
    """How a table numbers its rows: the id of its n-th row, and how many rows there are up to its newest id."""

    of_row: str = "n"
    rows: str = "newest"


IDS = {
    "": Ids(),
    "1 % of ids missing": Ids("n + (n - 1) DIV 99", "newest - newest DIV 100"),  # none is a multiple of 100
    "two thirds missing": Ids("3 * n", "newest DIV 3"),
}


class Work(NamedTuple):
    """What the server has done for a user."""

    statements: int
    rows: int
    """Read from tables."""
    seconds: float
    """Of its processor."""

    def since(self, before: "Work") -> "Work":
        """Return what was added since then."""
        return Work(self.statements - before.statements, self.rows - before.rows, self.seconds - before.seconds)


@dataclass
class Ground:
    """The servers and the folder of one scenario."""

    folder: Path
    mysql: MariaDB
    port: int
    """Of the sink."""
    sizes: Sizes
    python: str
    """What contenders run in: production has fewer packages than the tests, and starts quicker."""
    installs_peers: bool
    _sink: "subprocess.Popen[str]"
    database: str = "bench"

    def table(self, rows: int, *, actions: int = 20, seconds: int = 86_400, ids: Ids = IDS[""]) -> None:
        """Make the table anew, with so many rows of so many actions, over so many seconds up to now."""
        self.mysql.make_database(self.database)
        with self.mysql.connect() as connection, connection.cursor() as cursor:
            for user in USERS:
                cursor.execute(f"CREATE USER {user}@'127.0.0.1'")
                cursor.execute(f"GRANT SELECT ON *.* TO {user}@'127.0.0.1'")
        self.insert(rows, actions=actions, seconds=seconds, ids=ids)

    def insert(self, rows: int, *, actions: int = 20, seconds: int = 60, ids: Ids = IDS[""]) -> None:
        """Add rows after those that are there."""
        if not rows:
            return
        with self.mysql.connect(self.database) as connection, connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO audit_trail (id, created_at, action, outcome) "
                f"SELECT {ids.of_row}, at, action, 'ok' FROM ("
                f"SELECT {ids.rows} + seq AS n, CONCAT('action', seq % {actions}) AS action, "
                f"UTC_TIMESTAMP(6) - INTERVAL FLOOR({seconds} * (1 - seq / {rows})) SECOND AS at "
                f"FROM seq_1_to_{rows}, (SELECT COALESCE(MAX(id), 0) AS newest FROM audit_trail) AS there) AS new"
            )

    def copy(self, tables: int) -> None:
        """Make more tables like the first one, with a row."""
        with self.mysql.connect(self.database) as connection, connection.cursor() as cursor:
            for n in range(1, tables):
                cursor.execute(f"CREATE TABLE {table_of(n)} LIKE audit_trail")
        self.grow(tables, rows=1)

    def grow(self, tables: int, *, rows: int) -> None:
        """Add rows to each of the tables, of as many actions."""
        with self.mysql.connect(self.database) as connection, connection.cursor() as cursor:
            for n in range(tables):
                cursor.execute(
                    f"INSERT INTO {table_of(n)} (created_at, action, outcome) "
                    f"SELECT UTC_TIMESTAMP(6), CONCAT('action', seq), 'ok' FROM seq_1_to_{rows}"
                )

    def work(self, user: str) -> Work:
        """Return what the server has done for a user."""
        time.sleep(NOTED_SECONDS)
        with self.mysql.connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT select_commands + other_commands, rows_read, cpu_time "
                "FROM information_schema.user_statistics WHERE user = %s",
                (user,),
            )
            return Work(*(cursor.fetchone() or (0, 0, 0.0)))

    def lines(self) -> int:
        """Return how many lines the sink has had."""
        assert self._sink.stdin
        assert self._sink.stdout
        self._sink.stdin.write("\n")
        self._sink.stdin.flush()
        return int(self._sink.stdout.readline())

    def configure(
        self,
        *,
        jobs: int = 1,
        tables: int = 1,
        schedule: str = 'every = "1s"',
        start: str = "beginning",
        port: int | None = None,
        **sections: str,
    ) -> None:
        """Write shipper's configuration: jobs on so many tables, a port in place of the sink's, lines of sections."""
        servers = {"port": port or self.port, "mysql": self.mysql.port, "database": self.database}
        sections = {"state": "", "graphite": "", "source": "", "listen": "off"} | sections
        text = CONFIG.format(folder=self.folder, **servers, schedule=schedule, start=start, **sections)
        text += "".join(JOB.format(n=n, table=table_of(n % tables)) for n in range(jobs))
        (self.folder / "shipper.toml").write_text(text)

    def shipper(self, *arguments: str) -> list[str]:
        """Return the command of shipper, the service's as its unit runs it (PYTHONOPTIMIZE)."""
        python = [self.python, "-OO"] if "run" in arguments else [self.python]
        return [*python, "-m", "shipper.cli", *arguments, "--config", str(self.folder / "shipper.toml")]

    def bare(self, *loop: int) -> list[str]:
        """Return that of the floor."""
        where = ("127.0.0.1", str(self.mysql.port), self.database, str(self.port), f"{self.folder}/bare.db")
        return [self.python, str(HERE / "contenders/bare.py"), *where, *map(str, loop)]

    def seed(self, *loop: int) -> list[str]:
        """Return that of the classic script."""
        url = f"mysql+pymysql://root@127.0.0.1:{self.mysql.port}/{self.database}?charset=utf8mb4"
        where = (url, str(self.port), f"{self.folder}/seed.db")
        return [self.python, str(HERE / "contenders/seed.py"), *where, *map(str, loop)]

    def sqlclient(self, statement: str = COUNTS.format(after=0, upto=ALL)) -> list[str]:
        """Return that of the C client with the same SELECT, or another one."""
        login = ("-h127.0.0.1", f"-P{self.mysql.port}", "-uroot", "--skip-ssl", self.database)
        return ["mariadb", "--no-defaults", *login, "-N", "-e", statement]

    def compare(self, contenders: Mapping[str, Callable[[], float]], *, rounds: int | None = None) -> dict[str, float]:
        """Let all take turns, and return the median of each."""
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(rounds or self.sizes.rounds):
            for name in list(contenders) if turn % 2 else reversed(list(contenders)):
                found[name].append(contenders[name]())
        return {name: statistics.median(values) for name, values in found.items()}

    def forget(self) -> None:
        """Remove what the contenders have stored."""
        for file in self.folder.glob("*.db*"):
            file.unlink()


def table_of(number: int) -> str:
    """Return the name of one of several tables."""
    return f"audit_trail{number or ''}"


@contextmanager
def ground(sizes: Sizes, *, python: str = sys.executable, installs_peers: bool = False) -> Iterator[Ground]:
    """Start the servers; at the end they are no more."""
    with TemporaryDirectory(prefix="shipper-bench-") as folder:
        mysql = MariaDB(Path(folder) / "mariadb", ["--innodb-buffer-pool-size=1G", "--userstat=1"])
        sink = subprocess.Popen(
            [sys.executable, str(HERE / "sink.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert sink.stdout
            yield Ground(Path(folder), mysql, int(sink.stdout.readline()), sizes, python, installs_peers, sink)
        finally:
            sink.communicate()
            mysql.stop()
