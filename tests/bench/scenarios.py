"""What is measured: each scenario returns rows of the table."""

from collections.abc import Callable

from daemons import idle, many
from database import database
from ground import Ground
from measured import Measured
from passes import catchup, scale, startup, tick, wide
from sending import delivery
from storage import state

SCENARIOS: dict[str, Callable[[Ground], list[Measured]]] = {
    one.__name__: one for one in (startup, tick, wide, catchup, scale, delivery, idle, many, database, state)
}
