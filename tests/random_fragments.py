"""Random fragments of SQL, many of which leave the parentheses around them."""

import random

PIECES = (
    "'",
    "''",
    '"',
    "`",
    "(",
    ")",
    "[",
    "]",
    "\\",
    "$$",
    "$x$",
    "E'",
    "--",
    "/*",
    "*/",
    "#",
    ";",
    "\n",
    " ",
    "1",
    "@x(",
    "$x(",
    "1e5",
)
WORDS = ("OR", "id", ") OR (1 = 1", "1 = 1", "') OR (1 = 1) OR ('' = '", "x", "\n'", "1 = 1) OR (1 = 1")


def random_fragments(number: int) -> list[str]:
    """Return that number of fragments, always the same ones."""
    choose = random.Random(7)
    return ["".join(choose.choices(PIECES + WORDS, k=choose.randint(1, 9))) for _ in range(number)]
