"""Run shipper with proofs that are soon due: `python tests/hostile/quick.py run --config FILE`."""

from shipper.cli.commands import main
from shipper.core.delivery import proofs, readings
from shipper.runtime import delivery

SECONDS = 0.2


def hurry() -> None:
    """Shorten the delays between two readings, and between two failures."""
    changed: dict[tuple[object, str], object] = {
        (proofs, "READ_SECONDS"): SECONDS,
        (proofs, "MINUTE"): SECONDS,
        (proofs, "reread_delay"): lambda _: SECONDS,
        (readings, "SAMPLE_SECONDS"): SECONDS,
        (readings, "sample_delay"): lambda _: SECONDS,
        (readings, "sample_pause"): lambda _: SECONDS,
        (delivery, "backoff"): lambda *_: SECONDS,
    }
    for (owner, name), value in changed.items():
        setattr(owner, name, value)


if __name__ == "__main__":
    hurry()
    main()
