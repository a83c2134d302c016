"""What a scenario found."""

from typing import NamedTuple


class Measured(NamedTuple):
    """One number of ours, and what it is held against."""

    what: str
    ours: float
    other: str
    others: float
    unit: str
    target: float | None = None
    """The most that the ratio may be."""
    more_is_better: bool = False

    @property
    def ratio(self) -> float:
        """Return by how much ours is the worse: below 1 it is the better one."""
        worse, better = (self.others, self.ours) if self.more_is_better else (self.ours, self.others)
        return worse / better if better else float("inf")

    @property
    def is_met(self) -> bool | None:
        """Is the target met? None where there is none."""
        return None if self.target is None else self.ratio <= self.target
