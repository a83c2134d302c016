"""The classic script: SQLAlchemy, one graphyte.send a metric, one row that persists the id.

`python seed.py URL PORT STATE [JOBS SECONDS]`: one pass, or so many jobs every second for so long, in a loop.
It keeps no totals: a bucket that it reads in two parts shows the second. It is here for its costs.
"""

import sqlite3
import sys
import time
from contextlib import closing

import graphyte
import sqlalchemy as sa

MAX_ID = sa.text("SELECT MAX(id) FROM audit_trail")
COUNTS = sa.text(
    "SELECT FLOOR(UNIX_TIMESTAMP(created_at) / 60) * 60, action, COUNT(*) FROM audit_trail "
    "WHERE id > :after AND id <= :upto GROUP BY 1, 2"
)


def tick(engine: sa.Engine, port: int, state: str, job: int) -> None:
    """Count what is new, send it, and persist the id."""
    with closing(sqlite3.connect(state)) as store, store:
        store.execute("CREATE TABLE IF NOT EXISTS persist (name INTEGER PRIMARY KEY, value INTEGER)")
        row = store.execute("SELECT value FROM persist WHERE name = ?", (job,)).fetchone()
        after = row[0] if row else 0
        with engine.connect() as connection:
            upto = connection.execute(MAX_ID).scalar() or 0
            rows = connection.execute(COUNTS, {"after": after, "upto": upto}).all()
        sender = graphyte.Sender("127.0.0.1", port=port, prefix=f"bench{job}")
        for slot, action, count in rows:
            sender.send(f"{action}.count", count, timestamp=int(slot))
        store.execute("INSERT OR REPLACE INTO persist VALUES (?, ?)", (job, upto))


def main() -> None:
    """Run once, or as a loop."""
    url, port, state, *loop = sys.argv[1:]
    engine = sa.create_engine(url)
    if not loop:
        tick(engine, int(port), state, 0)
        return
    jobs, seconds = map(int, loop)
    end, due, ticks = time.monotonic() + seconds, time.monotonic(), 0
    while time.monotonic() < end:
        for job in range(jobs):
            tick(engine, int(port), state, job)
            ticks += 1
            if time.monotonic() > end:
                break
        due = max(due + 1, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    print(ticks)


if __name__ == "__main__":
    main()
