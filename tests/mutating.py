"""Runs tests on a mutant: a mistake in one module of the package, made while the module is imported."""

import io
import os
import sys
from collections.abc import Iterable
from contextlib import redirect_stderr, redirect_stdout
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
OPTIONS = (
    *("-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"),
    *("-W", "ignore::pytest.PytestAssertRewriteWarning"),  # of plugins that are imported already
)


class Mutant(NamedTuple):
    """A text in the code, its replacement, and the unit test that fails then."""

    file: str
    before: str
    after: str
    killer: str


class Ended(NamedTuple):
    """The end of a pytest."""

    exit_code: int
    output: str


def run(mutant: Mutant | None, tests: Iterable[str]) -> Ended:
    """Run unit tests until one fails, in a process that has not imported shipper yet; without a mutant as they are."""
    assert "shipper" not in sys.modules
    if mutant:
        _change(ROOT / "shipper" / mutant.file, mutant.before, mutant.after)
    os.chdir(ROOT)
    os.environ["HYPOTHESIS_PROFILE"] = "mutants"
    output = io.StringIO()
    with redirect_stdout(output), redirect_stderr(output):
        code = pytest.main([*OPTIONS, *(f"tests/unit/{test}" for test in tests)])
    return Ended(int(code), output.getvalue())


def _change(place: Path, before: str, after: str) -> None:
    """Let the import of a module find a changed text."""
    text = place.read_text()
    assert text.count(before) == 1, "the code has changed: fix the mutant"
    changed = compile(text.replace(before, after), place, "exec", dont_inherit=True)
    get_code = SourceFileLoader.get_code

    def get(self: SourceFileLoader, fullname: str) -> CodeType | None:
        return changed if Path(self.path) == place else get_code(self, fullname)

    setattr(SourceFileLoader, "get_code", get)  # noqa: B010 - mypy knows no such assignment
