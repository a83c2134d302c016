"""Edge. Health, metrics and the status page over HTTP, made of nothing but a report."""

from shipper.page.listen import Page

__all__ = ["Page"]
