"""SQL in a configuration: whether a fragment stays in the place that its statement has for it, and a statement is one.

Strategy: a fragment is put between parentheses of a larger statement. It leaves them only by a parenthesis too many,
or if a quote or a comment swallows the closing one. A tokenizer therefore knows how each database quotes; it need not
know anything else. A statement of the operator's own may be any, with comments, but only one: after another one, as
COMMIT, the session's transaction would not be read-only any more.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shipper.config.keys import JobSection
from shipper.config.problems import Place, Problem


class Flaw(NamedTuple):
    """Reason why a fragment is rejected, and the remedy."""

    reason: str
    remedy: str


class _Lexicon(NamedTuple):
    """Quotes and comments of a database."""

    quotes: dict[str, str]
    """Closing quote by opening quote; inside, a closing quote is written twice."""
    escaping: str
    """Quotes in which a backslash takes the meaning of the next character."""
    comments: tuple[str, ...]


_MYSQL = _Lexicon({"'": "'", '"': '"', "`": "`"}, "'\"", ("--", "/*", "#"))
_LEXICONS = {
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "postgresql": _Lexicon({"'": "'", '"': '"'}, "", ("--", "/*")),
    "sqlite": _Lexicon({"'": "'", '"': '"', "`": "`", "[": "]"}, "", ("--", "/*")),
}
_LETTER = r"(?:[A-Za-z_]|[^\x00-\x7f])"  # the same as one set takes 4 ms to compile
_WORD = re.compile(rf"{_LETTER}(?:{_LETTER}|[0-9$])*")
_DOLLAR_QUOTE = re.compile(rf"\$({_LETTER}(?:{_LETTER}|[0-9])*)?\$")
_CONTINUED = re.compile(
    r"[ \t\f\v]*[\n\r][ \t\f\v\n\r]*'"
)  # after a line break a text of PostgreSQL continues, escapes included
_NUMBER_BEFORE_QUOTE = re.compile(r"[0-9$][\w.$]*[eE]'")
"""1e5e'x': whether e'x' is a text with escapes depends on PostgreSQL's version."""
_VARIABLE = re.compile(r"[$@#:][\w$:]")
"""A variable of SQLite, $x(...), ends at the first parenthesis, whatever is quoted in it."""
_EXECUTED = re.compile(r"/\*M?!")
_END_OF_LINE = re.compile(r"[\r\n]|\Z")
_ENDS = re.compile(r"/\*|\*/")
_UNCLOSED, _AMBIGUOUS, _OUTSIDE = "\0", "\0\0", "\0\0\0"  # no tokens, because a NUL is rejected before


def fragment_problems(place: Place, job: JobSection, dialects: Iterable[str]) -> Iterator[Problem]:
    """Yield the fragments of a job that could leave their place in a statement of one of the dialects."""
    for keys, text in _fragments(job):
        flaws = [flaw for dialect in sorted(dialects) if (flaw := flaw_of(text, dialect))]
        for reason, remedy in flaws[:1]:
            yield Problem((*place, *keys), f"`{'.'.join(keys)}` {reason}", remedy)


def statement_problems(place: Place, text: str | None, dialects: Iterable[str]) -> Iterator[Problem]:
    """Yield the error of a complete statement, if one of the dialects would find more than one in it."""
    flaws = [flaw for dialect in sorted(dialects) if text and (flaw := statement_flaw(text, dialect))]
    for reason, remedy in flaws[:1]:
        yield Problem(place, f"`{place[-1]}` {reason}", remedy)


def _fragments(job: JobSection) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the keys of each fragment, and its text."""
    if job.where_sql is not None:
        yield ("where_sql",), job.where_sql
    if job.time_sql is not None:
        yield ("time_sql",), job.time_sql
    for name, text in job.by_sql.items():
        yield ("by_sql", name), text
    for name, names in job.names.items():
        if isinstance(names, str):
            yield ("names", name), names


def flaw_of(fragment: str, dialect: str) -> Flaw | None:
    """Return the reason why a fragment could leave its place on mysql, mariadb, postgresql or sqlite."""
    if "\0" in fragment:
        return Flaw("contains a NUL character", "Remove it: no statement can contain one.")
    if not fragment.strip():
        return Flaw("is empty", "Write an expression, or remove the key.")
    depth = 0
    for token in _tokens(fragment, dialect):
        if token in _LEXICONS[dialect].comments:
            return Flaw(f"contains a comment: {token}", _NO_COMMENT)
        if token in _FLAWS:
            return _FLAWS[token]
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth < 0:
            break
    if depth == 0:
        return None
    return Flaw("has parentheses that do not match", "Match each opening parenthesis with a closing one.")


def statement_flaw(text: str, dialect: str) -> Flaw | None:
    """Return the reason why a text may be more than one statement on mysql, mariadb, postgresql or sqlite."""
    text, here = text.strip().removesuffix(";"), 0
    lexicon = _LEXICONS[dialect]
    while here < len(text):
        if dialect == "postgresql" and _NUMBER_BEFORE_QUOTE.match(text, here):
            return _FLAWS[_AMBIGUOUS]
        if lexicon is _MYSQL and _EXECUTED.match(text, here):
            return Flaw("has a comment that the database executes", "Write its content without the comment.")
        comment = next((one for one in lexicon.comments if text.startswith(one, here)), None)
        end = _end_of_comment(text, here, comment, lexicon) if comment else _end(text, here, lexicon)
        if not end:
            return Flaw("has a comment that is not closed", "Close it with */.") if comment else _FLAWS[_UNCLOSED]
        if text[here:end] == ";":
            return Flaw("contains several statements", "Keep one: shipper runs a single SELECT, which changes nothing.")
        here = end
    return None


_NO_COMMENT = "Remove it, or write it after the closing quote, with #. Between two minus signs, write a blank."
_FLAWS = {
    _AMBIGUOUS: Flaw("has a number directly before a text", "Write a blank between them."),
    _OUTSIDE: Flaw("contains a variable", "Remove it: shipper gives it no value."),
    ";": Flaw("contains a semicolon", "Remove it: the text becomes a part of a statement."),
    _UNCLOSED: Flaw("has a quote that is not closed", "Close it; inside of quotes write it twice, as in 'it''s'."),
}


def _tokens(fragment: str, dialect: str) -> Iterator[str]:
    """Yield words, quoted texts, beginnings of comments, and single characters; _UNCLOSED last for an open quote."""
    start = 0
    while start < len(fragment):
        if dialect == "postgresql" and _NUMBER_BEFORE_QUOTE.match(fragment, start):
            yield _AMBIGUOUS
        if dialect == "sqlite" and _VARIABLE.match(fragment, start):
            yield _OUTSIDE
        end = _end(fragment, start, _LEXICONS[dialect])
        yield fragment[start:end] if end else _UNCLOSED
        start = end or len(fragment)


def _end(text: str, start: int, lexicon: _Lexicon) -> int:
    """Return where a token ends, 0 if it is a quote that is not closed."""
    is_postgresql = lexicon is _LEXICONS["postgresql"]
    if word := _WORD.match(text, start):
        has_escapes = is_postgresql and word[0] in {"e", "E"} and text.startswith("'", word.end())
        return _end_of_escapes(text, word.end()) if has_escapes else word.end()
    if is_postgresql and (quote := _DOLLAR_QUOTE.match(text, start)):
        closing = text.find(quote[0], quote.end())
        return 0 if closing < 0 else closing + len(quote[0])
    for comment in lexicon.comments:
        if text.startswith(comment, start):
            return start + len(comment)
    opening = text[start]
    if opening not in lexicon.quotes:
        return start + 1
    return _end_of_quote(text, start, lexicon.quotes[opening], escapes=opening in lexicon.escaping)


def _end_of_comment(text: str, start: int, opening: str, lexicon: _Lexicon) -> int:
    """Return where a comment ends, 0 if nothing closes it."""
    if opening == "--" and lexicon is _MYSQL and text[start + 2 : start + 3] > " ":
        return start + 2  # two operators
    if opening != "/*":
        return _END_OF_LINE.search(text, start).end()  # type: ignore[union-attr] # it also matches the end
    depth, here = 0, start
    while found := _ENDS.search(text, here):
        is_opening = found[0] == "/*"
        depth += (1 if not depth or lexicon is _LEXICONS["postgresql"] else 0) if is_opening else -1
        here = found.end()
        if depth == 0:
            return here
    return 0


def _end_of_escapes(text: str, start: int) -> int:
    """Return where a PostgreSQL text with escapes ends, with the parts on further lines that continue it."""
    end = _end_of_quote(text, start, "'", escapes=True)
    while end and (more := _CONTINUED.match(text, end)):
        end = _end_of_quote(text, more.end() - 1, "'", escapes=True)
    return end


def _end_of_quote(text: str, start: int, closing: str, *, escapes: bool) -> int:
    """Return where a quoted text ends, 0 if nothing closes it."""
    here = start + 1
    while here < len(text):
        if escapes and text[here] == "\\":
            here += 2
        elif text[here] != closing:
            here += 1
        elif closing != "]" and text.startswith(closing, here + 1):  # SQLite's brackets know no escape
            here += 2
        else:
            return here + 1
    return 0
