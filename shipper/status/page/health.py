"""Health as Kubernetes writes it: a word, or a line for each check."""

from collections.abc import Iterable

from shipper.status.report import Report


def livez(report: Report) -> tuple[bool, str]:
    """Tell whether a restart could help. A Carbon or a database that is dead is not cured by one."""
    return not report.stuck, "".join(f"{_line(reason)}\n" for reason in report.stuck) or "ok\n"


def readyz(report: Report, *, is_verbose: bool) -> tuple[bool, str]:
    """Tell whether the service runs, reaches its ends, and runs all its jobs; if not, always in detail."""
    if report.is_ready and not is_verbose:
        return True, "ok\n"
    verdict = "passed" if report.is_ready else "failed"
    return report.is_ready, f"{_lines(report.checks())}readyz check {verdict}\n"


def _lines(checks: Iterable[tuple[str, str | None]]) -> str:
    return "".join(
        f"[+]{_line(name)} ok\n" if reason is None else f"[-]{_line(name)} failed: {_line(reason)}\n"
        for name, reason in checks
    )


def _line(text: str) -> str:
    return " ".join(text.split())
