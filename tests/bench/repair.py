"""What it costs to count a day again out of many rows: a backfill, and a reconcile; with an index on time, and without.

What it is held against is one GROUP BY over the ids of that day, by the C client. A backfill leaves the database alone
for three quarters of the time, because the key `background` says so: the target is for one that need not.
"""

import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial

from graphite_web import GraphiteWeb
from ground import COUNTS, Ground
from harness import wait_for
from measured import Measured
from processes import run

from shipper.demo.carbon_cache import CarbonCache

DAY_SECONDS, DAYS = 86_400, 10
MOST = 1.5
UNLIMITED = "backfill at background = 100%"


def repair(ground: Ground) -> list[Measured]:
    """A day out of ten is counted again: by a backfill, and by a reconcile, which reads Graphite, too."""
    rows = ground.sizes.day
    with ExitStack() as stack:
        root, folder = ground.folder / "carbon", ground.folder / "web"
        cache = CarbonCache(root, retentions="1m:30d")
        stack.callback(cache.close)
        folder.mkdir()
        web = GraphiteWeb(folder, root=root)
        cache.start()
        stack.callback(web.stop)
        web.start()

        # all rows are captured before anything is measured
        end = int(time.time()) // 60 * 60
        ground.table(DAYS * rows, seconds=DAYS * DAY_SECONDS)
        configure = partial(ground.configure, port=cache.port, graphite=f'render_url = "{web.url}"')
        configure()
        run(ground.shipper("once"))
        without = _compared(ground, configure, end, "")
        with ground.mysql.connect(ground.database) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE INDEX at ON audit_trail (created_at)")
        return without + _compared(ground, configure, end, ", index on time")


def _compared(ground: Ground, configure: Callable[..., None], end: int, which: str) -> list[Measured]:
    """Count the sixth day again."""
    rows = ground.sizes.day
    start, until = (_text(end - days * DAY_SECONDS) for days in (DAYS // 2, DAYS // 2 - 1))
    first = DAYS // 2 * rows
    ids = COUNTS.format(after=first, upto=first + rows)
    span = ("--from", start, "--until", until)
    reconcile = ground.shipper("reconcile", "bench0", *span)
    shown = partial(subprocess.run, reconcile, capture_output=True, check=False)
    wait_for(lambda: shown().returncode == 0, "all values to be shown")  # Carbon writes them a little later

    def backfill(background: str) -> float:
        configure(source=f'background = "{background}"')
        return run(ground.shipper("backfill", "bench0", *span, "--yes"))

    found = ground.compare(
        {
            "one GROUP BY": partial(run, ground.sqlclient(ids)),
            "backfill": partial(backfill, "25%"),
            UNLIMITED: partial(backfill, "100%"),
            "reconcile": partial(run, reconcile),
        },
        rounds=ground.sizes.slowest_rounds,
    )
    alone = found.pop("one GROUP BY")
    what = f"a day, {rows:,} rows of {DAYS * rows:,}{which}"
    targets = dict.fromkeys(("reconcile", UNLIMITED), MOST) if which else {}
    return [
        Measured(f"{name}: {what}", seconds, "one GROUP BY", alone, "s", targets.get(name))
        for name, seconds in found.items()
    ]


def _text(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
