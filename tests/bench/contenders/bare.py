"""The floor for a Python program: a PyMySQL cursor, one sendall and its end of stream, one commit.

`python bare.py HOST PORT-OF-MYSQL DATABASE PORT STATE [JOBS WARM SECONDS]`: one pass, or so many jobs every second in a
loop, which prints how many ticks it made, and how many of them in so many seconds after so many to get warm. It keeps
no totals, proves nothing and survives nothing.
"""

import socket
import sqlite3
import sys
import time

import pymysql

COUNTS = (
    "SELECT FLOOR(UNIX_TIMESTAMP(created_at) / 60) * 60, action, COUNT(*) FROM audit_trail "
    "WHERE id > %s AND id <= %s GROUP BY 1, 2"
)


def tick(cursor: "pymysql.cursors.Cursor", store: sqlite3.Connection, port: int, job: int) -> None:
    """Count what is new, send it, and persist the id."""
    row = store.execute("SELECT value FROM persist WHERE name = ?", (job,)).fetchone()
    cursor.execute("SELECT MAX(id) FROM audit_trail")
    ((upto,),) = cursor.fetchall()
    cursor.execute(COUNTS, (row[0] if row else 0, upto or 0))
    lines = [f"bench{job}.{action}.count {count} {slot}\n" for slot, action, count in cursor.fetchall()]
    if lines:
        with socket.create_connection(("127.0.0.1", port)) as carbon:
            carbon.sendall("".join(lines).encode())
            carbon.shutdown(socket.SHUT_WR)
            carbon.recv(1)
    store.execute("INSERT OR REPLACE INTO persist VALUES (?, ?)", (job, upto or 0))
    store.commit()


def main() -> None:
    """Run once, or as a loop."""
    host, mysql, database, port, state, *loop = sys.argv[1:]
    connection = pymysql.connect(
        host=host, port=int(mysql), user="root", database=database, autocommit=True, ssl_disabled=True
    )
    store = sqlite3.connect(state)
    store.execute("PRAGMA journal_mode = WAL")
    store.execute("CREATE TABLE IF NOT EXISTS persist (name INTEGER PRIMARY KEY, value INTEGER)")
    cursor = connection.cursor()
    if not loop:
        tick(cursor, store, int(port), 0)
        return
    jobs, warm, seconds = map(int, loop)
    due = time.monotonic()
    begin, end, times = due + warm, due + warm + seconds, []
    while time.monotonic() < end:
        for job in range(jobs):
            tick(cursor, store, int(port), job)
            times.append(time.monotonic())
            if times[-1] > end:
                break
        due = max(due + 1, time.monotonic())
        time.sleep(max(0.0, due - time.monotonic()))
    print(len(times), sum(begin <= one < end for one in times))


if __name__ == "__main__":
    main()
