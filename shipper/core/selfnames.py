"""How the service's own numbers are called in Graphite: the configuration keeps the data's names off them."""

NODE = "shipper"
GAUGES = ("complete_until_age", "lag_rows", "series", "unproven", "overdue", "up")
"""As they stand, of which a coarser archive keeps the worst: the largest, of `up` the smallest."""
COUNTS = ("rows", "late_rows", "too_late", "datapoints", "capture_ms", "deliver_ms", "failures")
"""What came within a minute, which add up."""


def path(host: str, job: str, name: str) -> str:
    """Return the path of one number, behind the prefix."""
    return f"{NODE}.{host}.{job}.{name}"
