"""Rogue servers at every end, in turn and then at random, for the time of `--soak`; on each database.

The database, Carbon and graphite-web become rogues of the tables in `hostile/`, and well again. No rogue lies so that
a client has to believe it: no answer is a complete result. The process is never restarted, so that its memory shows.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from fault.proxy import Proxy
from fault.running import fault
from fault.score import Score
from fault.soak_faults import break_off
from fault.stage import Stage
from graphite_web import GraphiteWeb
from harness import wait_for
from hostile.databases import cases_of
from hostile.rogue import Rogue, Treatment, passing, silent
from hostile.rogue_graphite import CARBON, WEB, RogueCarbon

SHORT_SECONDS = 15.0  # without --soak, after one rogue of each kind
LONGEST_SECONDS = 4.0  # of one rogue
PATIENCE_SECONDS = 300.0  # until all totals are proven: what a rogue Carbon read was read again by a real one
LIES = {
    *("no utf-8", "long number", "long decimal", "no number", "no time", "no json", "infinite", "bytes", "bits"),
    *("unknown type", "numbers beyond all", "negative", "nulls", "texts", "one column", "many columns", "no rows"),
    *("many rows", "short rows", "long rows", "no columns", "success", "nothing", "end at once", "huge value"),
    *("refusal of rows", "refusal of names"),
}
"""Answers to statements that a client may take for those of a real server."""
READ = ("resets after all", "never reads", "reads a byte a second", "reads all and never closes", "speaks for ever")
"""What a Carbon may do that does not pass for one that has stored all."""
MOST_MEGABYTES = 240
LONG_SECONDS, MOST_GROWTH = 1800.0, 1.25
"""Time in which each large answer has come so often that memory does not grow any more, and what chance adds."""

Strike = Callable[[], None]


def rogues_at_random(stage: Stage) -> list[Score]:
    """Let any end be a rogue at any time. Mutants: a limit of an answer is missing; a bug that ends a job."""
    dice, memory, struck = random.Random(), Memory(stage), 0
    with ExitStack() as stack:
        server = "postgresql" if stage.kind == "postgresql" else "mariadb_server"
        strikes = Rogues(stage, dice, stack).strikes(server)
        stage.app.start()
        stage.write()
        until = time.monotonic() + (stage.soak_seconds or SHORT_SECONDS)
        while struck < len(strikes) or time.monotonic() < until:
            (strikes[struck] if struck < len(strikes) else dice.choice(strikes))()
            struck += 1
            memory.measure()
            time.sleep(dice.uniform(0, 2))
        note = memory.note()
        return [stage.finish(f"{stage.server.name}: rogues at random", struck, note, seconds=PATIENCE_SECONDS)]


for _kind in ("mariadb", "mysql", "postgresql"):
    options: dict[str, Any] = {"replay": '["3s", "6s", "9s"]'}
    fault(name=f"rogues_at_random_{_kind}", kind=_kind, has_own_server=True, is_long=True, **options)(rogues_at_random)


class Memory:
    """What the process uses, in MiB."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._sizes: list[int] = []

    def measure(self) -> None:
        """Look once more."""
        status = Path(f"/proc/{self._stage.app.pid}/status").read_text().splitlines()
        self._sizes += [int(line.split()[1]) // 1024 for line in status if line.startswith("VmRSS")]

    def note(self) -> str:
        """Check that it does not grow, where the time is long enough to see it; return it in words."""
        quarter = max(1, len(self._sizes) // 4)
        second, last = median(self._sizes[quarter : 2 * quarter] or self._sizes), median(self._sizes[-quarter:])
        note = f"RSS {second:.0f} MiB in the second quarter, {last:.0f} in the last, {max(self._sizes)} at most"
        assert max(self._sizes) < MOST_MEGABYTES, note
        assert self._stage.soak_seconds < LONG_SECONDS or last <= MOST_GROWTH * second, note
        return note


class Rogues:
    """A rogue at each end, all of them well until they strike."""

    def __init__(self, stage: Stage, dice: random.Random, stack: ExitStack) -> None:
        """Lead shipper, which does not run yet, through them."""
        self._dice = dice
        self._known: set[str] = set()
        # graphite-web reads the values that a Carbon has in memory, which must not run when it learns its port
        stage.carbon.stop()
        web = GraphiteWeb(stage.app.folder, root=stage.app.folder / "carbon")
        for end in (stage.carbon, web):
            end.start()
        stack.callback(web.stop)
        self._ports = {"database": stage.server.port, "carbon": stage.carbon.port}
        self._proxies = {name: stack.enter_context(closing(Proxy(port))) for name, port in self._ports.items()}
        self._rogues = {"database": Rogue(silent), "carbon": RogueCarbon(silent)}
        self._well = passing(web.port)
        self._web = Rogue(self._well)
        for rogue in (*self._rogues.values(), self._web):
            stack.enter_context(closing(rogue))
        before, after = (f"127.0.0.1:{port}/" for port in (stage.server.port, self._proxies["database"].port))
        stage.app.configure(before, after)
        render_url = f'render_url = "http://127.0.0.1:{self._web.port}"'
        stage.app.configure(f"port = {stage.carbon.port}\n", f"port = {self._proxies['carbon'].port}\n{render_url}\n")

    def strikes(self, server: str) -> list[Strike]:
        """Return what makes an end a rogue and well again: one of each kind, then those that break connections."""
        cases = cases_of(server, self._ports["database"])
        treatments = {one.name: one.treat for one in cases if one.name.removeprefix("statement ") not in LIES}
        logins, statements = (
            [treat for name, treat in treatments.items() if name.startswith(kind)] for kind in ("login", "statement")
        )
        return [
            partial(self._strike, "database", "login", logins),
            partial(self._strike, "database", "statement", statements),
            partial(self._strike, "carbon", "carbon", [CARBON[name] for name in READ]),
            self._strike_web,
            *(partial(break_off, proxy, self._dice) for proxy in self._proxies.values()),
        ]

    def _strike(self, end: str, kind: str, treatments: Sequence[Treatment]) -> None:
        rogue = self._rogues[end]
        rogue.become(self._dice.choice(treatments))
        self._proxies[end].lead(rogue.port)
        self._stay(rogue, kind)
        self._proxies[end].lead(self._ports[end])
        rogue.become(silent)

    def _strike_web(self) -> None:
        self._web.become(self._dice.choice(list(WEB.values())))
        self._stay(self._web, "graphite-web")
        self._web.become(self._well)

    def _stay(self, rogue: Rogue, kind: str) -> None:
        """Stay a rogue for a while, the first one of its kind until it has a client.

        Later it may have none, since shipper asks a graphite-web that fails more and more rarely.
        """
        before = rogue.connections
        if kind not in self._known:
            wait_for(lambda: rogue.connections > before, f"the first client of a rogue: {kind}")
            self._known.add(kind)
        time.sleep(self._dice.uniform(0, LONGEST_SECONDS))
