"""What can go wrong, and who can do something about it.

```
ShipperError            lower-case message, the step first; .hint is one sentence with the remedy
├─ ConfigError          the operator must act; the process exits with 78 (EX_CONFIG)
├─ TransientError       the watermark stays; the next tick tries again
│  ├─ SourceUnavailable     the database does not answer, or not in time
│  ├─ DeliveryFailed        Carbon did not confirm a batch: its outcome is unknown
│  ├─ ReadbackFailed        Graphite's render API does not answer
│  └─ StateBusy             the state cannot be used now: another process has it, the disk is full or read-only
├─ NotRunning           no daemon runs that could be asked
└─ PermanentError       trying again cannot help until somebody acts
   ├─ QueryRefused          the database understood the query and refused it
   │  └─ Overflow              a sum of so many rows has no room in its type
   ├─ BadMetric             a path or a value that Carbon would misread
   ├─ Unproven              Graphite does not hold what was sent to it
   ├─ StateCorrupt          the state file is damaged, foreign, newer, or moved under our feet
   └─ SourceReset           the table went back below what was captured
```

Edges translate their drivers' errors once, `raise ... from error`; the tick and the courier's loop turn them
into a report. Anything that is not a ShipperError is a bug.
"""


class ShipperError(Exception):
    """A failure that we know, with a remedy where there is one."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class ConfigError(ShipperError):
    """The configuration or the command line cannot be run as it stands."""


class TransientError(ShipperError):
    """Trying again later may help, and the next tick does."""


class SourceUnavailable(TransientError):
    """The source does not answer, or not in time."""


class DeliveryFailed(TransientError):
    """Carbon did not confirm a batch; whether it arrived is unknown."""


class ReadbackFailed(TransientError):
    """Graphite's render API does not answer, or nothing that can be understood."""


class StateBusy(TransientError):
    """The state cannot be used now: another process has it, or the disk is full or read-only."""


class NotRunning(ShipperError):
    """No daemon runs that could be asked."""


class PermanentError(ShipperError):
    """Trying again cannot help until somebody acts."""


class QueryRefused(PermanentError):
    """The source understood the query and refused it."""


class Overflow(QueryRefused):
    """A sum goes beyond what the type of its column has room for: that of fewer rows may not."""


class BadMetric(PermanentError):
    """A path or a value that Carbon would misread."""


class Unproven(PermanentError):
    """Graphite does not hold what Carbon has confirmed, several times."""


class StateCorrupt(PermanentError):
    """The state file is damaged, foreign, newer than this program, or was changed by somebody else."""


class SourceReset(PermanentError):
    """The table's largest id went back below what was captured."""
