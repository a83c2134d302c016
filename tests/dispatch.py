"""A courier at work, without threads: between a real state, a fake Carbon, and what Graphite shows of that."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from builders import ARCHIVE, NOW, begin, job
from builders import done as counted
from fakes import FakeCarbon, FakeSource

from shipper.core.delivery.courier import Courier, Delivered
from shipper.core.errors import DeliveryFailed, ReadbackFailed
from shipper.core.model import Archive, Datapoint, Now, Replay, Window
from shipper.core.rows.table import Context
from shipper.core.rows.totals import Cell, Folded, add
from shipper.state.store import State

MINUTE = NOW
REPLAY = (60, 600, 3600)


class Graphite:
    """A render API that tells what Carbon holds, and so many times only that it is busy."""

    def __init__(self, carbon: FakeCarbon) -> None:
        self.carbon, self.failures = carbon, 0
        self.asked: list[tuple[list[str], int]] = []
        """The paths and the slot of each request."""

    def read(self, paths: Sequence[str], slot: int) -> dict[str, float | None]:
        """Look into Carbon."""
        self.asked.append((list(paths), slot))
        if self.failures:
            self.failures -= 1
            raise ReadbackFailed("read back: busy")
        sums = self.carbon.sums()
        return {path: sums.get(path, {}).get(slot) for path in paths}


class Desk:
    """A courier at work between a real state and a fake Carbon that notes each batch."""

    def __init__(
        self,
        state: State,
        *,
        batch: int = 100,
        replay: tuple[int, ...] = REPLAY,
        schedule: Sequence[Replay] = (),
        archives: tuple[Archive, ...] = (ARCHIVE,),
        reads: bool = False,
        samples: bool = False,
    ) -> None:
        """Read all back from a Graphite of its own, or samples."""
        self.state = state
        self.archives = archives
        self.carbon = FakeCarbon()
        self.batches: list[list[str]] = []
        self.clock = 1000.0
        self.meanwhile: Callable[[], object] = lambda: None
        self.graphite = Graphite(self.carbon)
        self.courier = Courier(
            state.outbox,
            self,
            archives=archives,
            batch=batch,
            replay=replay,
            schedule=schedule,
            reader=self.graphite if reads else None,
            sampled_by=self.graphite if samples else None,
        )

    def deliver(self, datapoints: Sequence[Datapoint]) -> None:
        """Log the batch, and deliver it."""
        self.carbon.deliver(datapoints)
        self.batches.append([f"{path} {value} {slot}" for path, value, slot in datapoints])
        self.meanwhile()

    def has_died(self) -> bool:
        """Ask Carbon."""
        return self.carbon.has_died()

    def restart_carbon(self) -> None:
        """Kill Carbon, which the courier sees, and start it again."""
        self.carbon.kill()
        with suppress(DeliveryFailed):
            self.step()
        self.carbon.start()

    def record(self, name: str, after: int, upto: int, counts: dict[tuple[str, int], int], *, now: int = NOW) -> None:
        """Record a window of a job, which begins with it."""
        wanted = job(name, archives=self.archives)
        if self.state.progress(name) is None:
            begin(self.state, wanted, after)
        folded = Folded({((action,), slot): Cell(rows, (rows,)) for (action, slot), rows in counts.items()})
        window = Window(after, upto)
        context = Context(wanted, FakeSource(), self.state, Now(now))
        add(context, window, folded, counted(self.state, window, name))

    def step(self, *, now: int = NOW, is_trusted: bool = True) -> Delivered | None:
        """Take one step."""
        return self.courier.step(now=now, clock=self.clock, is_trusted=is_trusted)

    def run(self) -> list[list[str]]:
        """Take steps until nothing waits; return the batches that went."""
        self.batches.clear()
        for _ in range(100):
            if self.step() is None:
                return self.batches
        raise AssertionError("the courier never comes to rest")

    def watermark(self, name: str) -> int:
        """Return a job's watermark."""
        position = self.state.offsets(name)
        assert position is not None
        return position.watermark

    def unproven(self) -> int:
        """Count the totals that wait or are not proven."""
        count: int = self.state._connection.execute("SELECT COUNT(*) FROM total WHERE changed = 1").fetchone()[0]
        return count
