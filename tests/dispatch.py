"""A courier without threads, between a real state, a fake Carbon and a fake Graphite."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from builders import ARCHIVE, NOW, begin, job
from builders import done as counted
from fakes import FakeCarbon, FakeSource

from shipper.core.delivery.courier import Courier, Delivered
from shipper.core.delivery.outbox import Replay
from shipper.core.errors import DeliveryFailed, ReadbackFailed
from shipper.core.model import Archive, Datapoint, Now, Window
from shipper.core.rows.folding import Cell, Folded
from shipper.core.rows.table import Context
from shipper.core.rows.totals import add
from shipper.state.store import State

MINUTE = NOW
REPLAY = (60, 600, 3600)


class Graphite:
    """A render API that answers with Carbon's values, after a number of failures."""

    def __init__(self, carbon: FakeCarbon) -> None:
        self.carbon, self.failures = carbon, 0
        self.requests: list[tuple[list[str], int]] = []
        """Paths and slot of each request."""

    def read(self, paths: Sequence[str], slot: int) -> dict[str, float | None]:
        """Answer with Carbon's values, or fail."""
        self.requests.append((list(paths), slot))
        if self.failures:
            self.failures -= 1
            raise ReadbackFailed("read back: busy")
        sums = self.carbon.sums()
        return {path: sums.get(path, {}).get(slot) for path in paths}


class Desk:
    """A courier between a real state and a fake Carbon, with a log of its batches."""

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
        replayed: int = 0,
    ) -> None:
        """Set up a courier; reads: read all totals back but those up to `replayed`, samples: read samples."""
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
            replayed=replayed,
        )

    def deliver(self, datapoints: Sequence[Datapoint]) -> None:
        """Log the batch, and deliver it."""
        self.carbon.deliver(datapoints)
        self.batches.append([f"{path} {value} {slot}" for path, value, slot in datapoints])
        self.meanwhile()

    def has_died(self) -> bool:
        """Ask Carbon."""
        return self.carbon.has_died()

    @property
    def may_write_old_values(self) -> bool:
        """Ask Carbon."""
        return self.carbon.may_write_old_values

    def restart_carbon(self) -> None:
        """Kill Carbon, let the courier notice it, and start Carbon again."""
        self.carbon.kill()
        with suppress(DeliveryFailed):
            self.step()
        self.carbon.start()

    def record(self, name: str, after: int, upto: int, counts: dict[tuple[str, int], int], *, now: int = NOW) -> None:
        """Record a window of a job; the job starts with its first window."""
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
        """Take steps until nothing waits; return the batches that were sent."""
        self.batches.clear()
        for _ in range(100):
            if self.step() is None:
                return self.batches
        raise AssertionError("the courier does not come to rest")

    def watermark(self, name: str) -> int:
        """Return a job's watermark."""
        position = self.state.offsets(name)
        assert position is not None
        return position.watermark

    def unproven(self) -> int:
        """Return the number of totals that are not proven and not deferred."""
        count: int = self.state._connection.execute("SELECT COUNT(*) FROM total WHERE changed = 1").fetchone()[0]
        return count
