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


def _quoted(quote: str) -> str:
    """Return the pattern of a text in quotes; a quote inside is written twice."""
    return rf"{quote}(?:[^{quote}]|{quote}{quote})*+{quote}"


def _escaped(quote: str) -> str:
    """Return the pattern of a text in quotes in which a backslash takes the meaning of the next character."""
    return rf"{quote}(?:[^{quote}\\]|\\.|{quote}{quote})*+{quote}"


_SINGLE, _DOUBLE, _TICK = map(_quoted, "'\"`")
_SINGLE_ESCAPED, _DOUBLE_ESCAPED = map(_escaped, "'\"")
_LETTER = r"(?:[A-Za-z_]|[^\x00-\x7f])"  # the same as one set takes 4 ms to compile
_WORD = rf"{_LETTER}(?:{_LETTER}|[0-9$])*+"
_NUMBER = r"(?:[0-9]|\$(?=[0-9]))[0-9.]*+"
_DOLLARS = rf"\$(?:{_LETTER}(?:{_LETTER}|[0-9])*+)?\$"
_BREAK = r"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\f\v\n\r]|--[^\n\r]*+[\n\r])*+"
"""Line break, with comments around it, after which a text of PostgreSQL continues, escapes included."""
_CONTINUED = rf"{_SINGLE_ESCAPED}(?:{_BREAK}{_SINGLE_ESCAPED})*+(?!{_BREAK}')"
_MYSQL = rf"""
      (?P<comment> -- | /\* | \# )
    | {_SINGLE_ESCAPED} | {_DOUBLE_ESCAPED} | {_TICK} | (?P<unclosed> ['"`] )
"""
_TOKENS = {
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    # 1e5e'x': whether e'x' is a text with escapes depends on PostgreSQL's version
    "postgresql": rf"""
          (?P<ambiguous> (?:{_NUMBER}(?:{_WORD})?+|\$(?:{_LETTER}|[0-9])*+)(?<=[eE])' )
        | (?P<comment> -- | /\* )
        | [eE]{_CONTINUED} | {_SINGLE} | {_DOUBLE} | (?P<dollars>{_DOLLARS}).*?(?P=dollars)
        | (?P<unclosed> [eE]?' | " | {_DOLLARS} ) | {_NUMBER}
    """,
    # a variable, $x(...), ends at the first parenthesis, whatever is quoted in it; ?1 is one of the values around it
    "sqlite": rf"""
          (?P<variable> [$@\#:](?=[\w$:]) | \? )
        | (?P<comment> -- | /\* )
        | {_SINGLE} | {_DOUBLE} | {_TICK} | \[[^]]*+] | (?P<unclosed> ['"`[] )
    """,
}
"""Beginnings of comments, and quoted texts, of each database."""
_EXECUTED = re.compile(r"/\*M?!")
_END_OF_LINE = re.compile(r"[\r\n]|\Z")
_ENDS = re.compile(r"\*/"), re.compile(r"/\*|\*/")
"""Ends of a comment; where comments nest, as on PostgreSQL alone, also the beginning of another one."""


def fragment_problems(place: Place, job: JobSection, dialects: Iterable[str]) -> Iterator[Problem]:
    """Yield the fragments of a job that could leave their place in a statement of one of the dialects."""
    fragments: dict[tuple[str, ...], str | None] = {("where_sql",): job.where_sql, ("time_sql",): job.time_sql}
    fragments |= {("by_sql", name): text for name, text in job.by_sql.items()}
    fragments |= {("names", name): names for name, names in job.names.items() if isinstance(names, str)}
    for keys, text in fragments.items():
        flaws = [flaw for dialect in sorted(dialects) if text is not None and (flaw := flaw_of(text, dialect))]
        for reason, remedy in flaws[:1]:
            yield Problem((*place, *keys), f"`{'.'.join(keys)}` {reason}", remedy)


def statement_problems(place: Place, text: str | None, dialects: Iterable[str]) -> Iterator[Problem]:
    """Yield the error of a complete statement, if one of the dialects would find more than one in it."""
    flaws = [flaw for dialect in sorted(dialects) if text and (flaw := statement_flaw(text, dialect))]
    for reason, remedy in flaws[:1]:
        yield Problem(place, f"`{place[-1]}` {reason}", remedy)


def flaw_of(fragment: str, dialect: str) -> Flaw | None:
    """Return the reason why a fragment could leave its place on mysql, mariadb, postgresql or sqlite."""
    if "\0" in fragment:
        return Flaw("contains a NUL character", "Remove it: no statement can contain one.")
    if not fragment.strip():
        return Flaw("is empty", "Write an expression, or remove the key.")
    depth = 0
    for token in _tokens(dialect).finditer(fragment):
        if token.lastgroup == "comment":
            return Flaw(f"contains a comment: {token[0]}", _NO_COMMENT + _OR_MEANT.get(token[0], ""))
        if token.lastgroup in _FLAWS:
            return _FLAWS[token.lastgroup]
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if depth < 0:
            break
    if depth == 0:
        return None
    return Flaw("has parentheses that do not match", "Match each opening parenthesis with a closing one.")


def statement_flaw(text: str, dialect: str) -> Flaw | None:
    """Return the reason why a text may be more than one statement on mysql, mariadb, postgresql or sqlite."""
    text, here, tokens = text.strip().removesuffix(";"), 0, _tokens(dialect)
    while token := tokens.match(text, here):
        here = token.end()
        match token.lastgroup:
            case "ambiguous" | "unclosed" as kind:
                return _FLAWS[kind]
            case "semicolon":
                return Flaw(
                    "contains several statements", "Keep one: shipper runs a single SELECT, which changes nothing."
                )
            case "comment":
                if _TOKENS[dialect] is _MYSQL and _EXECUTED.match(text, token.start()):
                    return Flaw("has a comment that the database executes", "Write its content without the comment.")
                here = _end_of_comment(text, token.start(), token[0], dialect)
                if not here:
                    return Flaw("has a comment that is not closed", "Close it with */.")
    return None


_NO_COMMENT = 'Remove it, or move it out of the SQL, to the end of the line: KEY = "SQL"  # comment.'
_OR_MEANT = {"--": " If two minus signs are meant, write a blank between them."}
_FLAWS = {
    "ambiguous": Flaw("has a number directly before a text in quotes", "Write a blank between them."),
    "variable": Flaw("contains a variable", "Remove it: shipper gives it no value."),
    "semicolon": Flaw("contains a semicolon", "Remove it: the text becomes a part of a statement."),
    "unclosed": Flaw("has a quote that is not closed", "Close it; double each quote inside quotes, as in 'it''s'."),
}


def _tokens(dialect: str) -> re.Pattern[str]:
    """Return the pattern of a token: also of a word, and of any other single character."""
    return re.compile(rf"{_TOKENS[dialect]} | {_WORD} | (?P<semicolon> ; ) | .", re.DOTALL | re.VERBOSE)


def _end_of_comment(text: str, start: int, opening: str, dialect: str) -> int:
    """Return where a comment ends, 0 if nothing closes it."""
    if opening == "--" and _TOKENS[dialect] is _MYSQL and text[start + 2 : start + 3] > " ":
        return start + 2  # two operators
    if opening != "/*":
        return _END_OF_LINE.search(text, start).end()  # type: ignore[union-attr] # it also matches the end
    depth = 1
    for found in _ENDS[dialect == "postgresql"].finditer(text, start + 2):
        depth += 1 if found[0] == "/*" else -1
        if depth == 0:
            return found.end()
    return 0
