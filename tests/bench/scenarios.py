"""What is measured: each scenario returns rows of the table."""

from collections.abc import Callable

from daemons import idle, many
from database import database
from ground import Ground
from growth import growth
from latency import latency, pages
from measured import Measured
from pair import pair
from passes import catchup, scale, startup, tick, wide
from repair import repair
from sending import delivery
from storage import state

_ALL = (
    startup,
    tick,
    wide,
    catchup,
    scale,
    delivery,
    latency,
    idle,
    many,
    pages,
    repair,
    database,
    state,
    pair,
    growth,
)
SCENARIOS: dict[str, Callable[[Ground], list[Measured]]] = {one.__name__: one for one in _ALL}
