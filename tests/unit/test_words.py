"""The style guide's word list: pages, docstrings, comments and messages use none of these words."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
WORDS = {
    r"mend(?:s|ed|ing)?": "fix",
    r"(?:go|goes|went|going) on": "continue",
    r"so (?:many|much|long|often|few)": "the number",
    r"whoever|nobody|somebody|anybody": "operator, user, process, thread",
    r"how (?:it|they|he|she|each|all|jobs?) (?:do|does|did)": "status",
    r"(?:is|are|was|were|be|been|being|unless|if) told": "is reported, is logged",
    r"one's own|of (?:one's|its|their|our|his|your) own(?! time)": "custom, separate",
    r"anew": "again",
    r"for good": "permanently",
    r"stands?(?! for| alone|-in| by|-by)": "is",
    r"as it says|as they say": "as configured",
    r"by now": "now",
    r"is another|are others?": "differs, has changed",
    r"is well|are well|not well": "healthy, unhealthy",
    r"what it holds|what is wrong": "rows, errors",
    r"in vain": "without result",
    r"thousand million": "billion",
}
"""Patterns, and what to write instead."""
WORD_LIST = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in WORDS), re.IGNORECASE)
# a sentence that is no question, at the start of a line or after the end of another sentence
BEGINNING = re.compile(r"(?:^[\s#>*|\d.-]*|[.!?:;|] +)(?:What|So|By|Of) [a-z`][^.!?]*+(?!\?)", re.MULTILINE)
PAGES = sorted(
    str(path.relative_to(ROOT))
    for folder in (".", ".github", "deploy", "shipper", "tests", "tests/bench", "config")
    for path in (*(ROOT / folder).glob("*.md"), *(ROOT / folder).glob("*.toml"))
    if path.name != "pyproject.toml"
)
MODULES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "shipper").rglob("*.py"))


class Text(NamedTuple):
    """A docstring, a comment or a message of a module."""

    line: int
    kind: str
    text: str


def _complaints(text: str) -> Iterator[str]:
    """Yield each pattern that a text contains, with what is around it."""
    for match in (*WORD_LIST.finditer(text), *BEGINNING.finditer(text)):
        around = text[max(0, match.start() - 30) : match.start() + 50]
        yield f"{match.group().strip()[:20]!r} in {' '.join(around.split())!r}"


def _prose(page: str) -> str:
    """Return the text of a page without its code."""
    text = (ROOT / page).read_text()
    if page.endswith(".toml"):
        return "\n".join(line.partition("# ")[2] for line in text.splitlines())
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(?:    .*\n)+", "", text, flags=re.MULTILINE)
    text = re.sub(r"`[^`\n]*`|\"[^\"\n]*\"", "X", text)
    return re.sub(r"\]\([^)]*\)", "]", text)


def _texts(source: str) -> Iterator[Text]:
    """Yield the docstrings, comments and messages of a module."""
    tree = ast.parse(source)
    lone = {id(node.value): node for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in lone:
                yield Text(node.lineno, "docstring", re.sub(r"`[^`]*`", "X", node.value))
            elif " " in node.value:
                yield Text(node.lineno, "message", node.value)
    comments: list[Text] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            if comments and comments[-1].line + comments[-1].text.count("\n") + 1 == token.start[0]:
                comments[-1] = comments[-1]._replace(text=f"{comments[-1].text}\n{text}")
            else:
                comments.append(Text(token.start[0], "comment", text))
    yield from comments


def _bad_words(module: str) -> Iterator[str]:
    """Yield what to reword in a module, with its place."""
    for line, kind, text in _texts((ROOT / module).read_text()):
        joined = " ".join(text.split()) if kind != "docstring" else text
        for complaint in _complaints(joined):
            yield f"{module}:{line}: {kind}: {complaint}"
        if kind == "docstring" and text.strip().partition("\n")[0].endswith("?"):
            yield f"{module}:{line}: docstring: a question: {text.strip().partition(chr(10))[0]!r}"


@pytest.mark.parametrize("page", PAGES)
def test_pages(page: str) -> None:
    """Pages and the sample configuration use the words of the style guide (.github/CONTRIBUTING.md)."""
    assert list(_complaints(_prose(page))) == []


@pytest.mark.parametrize("module", MODULES)
def test_modules(module: str) -> None:
    """Docstrings, comments and messages use the words of the style guide, and ask no questions."""
    assert list(_bad_words(module)) == []


@pytest.mark.parametrize(
    ("source", "complaints"),
    [
        ('"""Return the rows."""\n', 0),
        ('"""Does it run?"""\n', 1),
        ('"""What a look finds."""\n', 1),
        ('"""Return a row. So it is new."""\n', 1),
        ("x = 1  # nobody waits for it\n", 1),
        ("# it goes\n# on with the rest\nx = 1\n", 1),
        ('error = "the job goes on"\n', 1),
        ('error = f"{x}: as it stands"\n', 1),
        ('"""Return `x anew`."""\n', 0),
    ],
)
def test_word_list_finds_what_it_should(source: str, complaints: int, tmp_path: Path) -> None:
    """The check finds words in docstrings, comments over several lines, and messages."""
    file = tmp_path / "module.py"
    file.write_text(source)

    assert len(list(_bad_words(str(file)))) == complaints
