"""Does Carbon read what it is sent, can Graphite be read back, and what is proven by that?"""

import time
from collections.abc import Iterator
from contextlib import closing

from shipper.config.load import Config
from shipper.diagnostics.finding import Finding
from shipper.runtime.pipeline import evidence_of, open_carbon, open_readback


def looks_at_carbon(config: Config) -> Iterator[Finding]:
    """Send it nothing, and see whether it reads that to the end."""
    with closing(open_carbon(config)) as carbon:
        carbon.deliver(b"")
        yield Finding(True, f"carbon {carbon}", "reads what it is sent")


def looks_at_graphite(config: Config) -> Iterator[Finding]:
    """Ask for a series that nobody has, where it is read at all."""
    readback = open_readback(config)
    if readback is not None:
        readback.read(["shipper.check"], int(time.time()) // 60 * 60)
        yield Finding(True, f"graphite {readback}", "can be read back")


def tells_evidence(config: Config) -> Iterator[Finding]:
    """Say what is proven to be in Graphite, and what is only believed."""
    yield Finding(True, "proof", evidence_of(config))
