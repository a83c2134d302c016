"""How the cost grows with rows, series, jobs and gaps: lines in a picture beside this file, made by the run."""

from daemons import paced
from database import against_plain
from ground import HERE, IDS, SMOKE, Ground, Ids
from lines import Line, drawn
from measured import Measured
from processes import run

PICTURE = "growth.svg"
HOLES = {
    0.0: IDS[""],
    1.0: IDS["1 % of ids missing"],
    33.3: Ids("n + (n - 1) DIV 2", "newest - newest DIV 3"),  # none is a multiple of 3
    66.7: IDS["two thirds missing"],
}
"""Ids by how many are missing, in percent."""


def growth(ground: Ground) -> list[Measured]:
    """Draw the lines; return the cost for one at the end of each line against that at its beginning."""
    lines = [_rows(ground), _series(ground), _jobs(ground), _gaps(ground)]
    folder = ground.folder if ground.sizes == SMOKE else HERE
    (folder / PICTURE).write_text(drawn(lines))
    return [_compared(line) for line in lines]


def _compared(line: Line) -> Measured:
    (first, before), (last, after) = line.points[0], line.points[-1]
    return Measured(f"{line.title}: {last:,} {line.across}", after, f"at {first:,}", before, line.unit)


def _rows(ground: Ground) -> Line:
    points = []
    for rows in ground.sizes.growth_rows:
        ground.forget()
        ground.table(rows)
        ground.configure()
        points.append((rows, 1e6 * run(ground.shipper("once")) / rows))
    return Line("a pass over all rows", "rows", "µs a row", points)


def _series(ground: Ground) -> Line:
    points = []
    for series in ground.sizes.growth_series:
        ground.forget()
        ground.table(series, actions=series, seconds=1)
        ground.configure()
        points.append((series, 1e6 * run(ground.shipper("once")) / series))
    return Line("a pass over new series", "series", "µs a series", points)


def _jobs(ground: Ground) -> Line:
    points = [(jobs, 1000 * paced(ground, jobs).cpu) for jobs in ground.sizes.growth_jobs]
    return Line("jobs every second", "jobs", "ms of processor a tick", points)


def _gaps(ground: Ground) -> Line:
    points = []
    for share, ids in HOLES.items():
        _, rows, _ = against_plain(ground, f"{share} %", ids)
        points.append((share, rows.ratio))
    return Line("rows read for each row counted", "% of ids missing", "rows", points, is_logarithmic=False)
