"""Conformance cases. Every database can represent their values exactly."""

from hashlib import sha256

from table import Case, Event, actions, at

_ALL = 'by = []\nname = "x.{measure}"\n'
_MEASURES = (
    'measure = { count = "count", ms = "sum:duration_ms", slowest = "max:duration_ms", fastest = "min:duration_ms" }\n'
)
_OUTCOMES = [
    Event(1, outcome="ok", duration_ms=5),
    Event(2, outcome="failure", duration_ms=10),
    Event(3, outcome="failure", duration_ms=None),
    Event(4, outcome=None, duration_ms=20),
    Event(5, outcome="login_x", duration_ms=30),
]


def _where(where: str, count: int, name: str) -> Case:
    """Return the case that counts the five rows above with a condition."""
    expected: dict[str, dict[str, float]] = {" count": {"14:00": count}} if count else {}
    return Case(f"where {name}", _OUTCOMES, expected, _ALL + where)


def _label(value: str) -> str:
    """Return how the state holds a value."""
    return value if len(value) <= 100 else f"{value[:100]}...{sha256(value.encode()).hexdigest()}"


ROWS = [
    Case("empty table", [], {}),
    Case("one row", at("14:00:00"), {"login count": {"14:00": 1}}),
    Case("one minute", at(*["14:00:30"] * 7), {"login count": {"14:00": 7}}),
    Case(
        "minutes out of order",
        at("14:02:00", "14:00:00", "14:01:59", "14:00:59"),
        {"login count": {"14:00": 2, "14:01": 1, "14:02": 1}},
    ),
    Case(
        "groups",
        actions("a", "b", "a", "c", "a"),
        {"a count": {"14:00": 3}, "b count": {"14:00": 1}, "c count": {"14:00": 1}},
    ),
    Case("no groups", actions("a", "b", None), {" count": {"14:00": 3}}, _ALL),
    Case(
        "two columns",
        [Event(1, action="a", outcome="x"), Event(2, action="a", outcome="y"), Event(3, action="a", outcome="x")],
        {"a|x count": {"14:00": 2}, "a|y count": {"14:00": 1}},
        'by = ["action", "outcome"]\nname = "{outcome}.{action}.{measure}"',
    ),
    Case("fixed path", actions("a", "b"), {" count": {"14:00": 2}}, 'by = []\nname = "logins"'),
    Case(
        "five minutes",
        at("14:00:00", "14:04:59", "14:05:00"),
        {"login count": {"14:00": 2, "14:05": 1}},
        'bucket = "5m"',
    ),
    Case(
        "an hour",
        at("13:00:00", "13:59:59", "14:00:00"),
        {"login count": {"13:00": 2, "14:00": 1}},
        'bucket = "1h"',
        zoom=3600,
    ),
    Case(
        "90 minutes",
        at("12:00:00", "13:29:59", "13:30:00"),
        {"login count": {"12:00": 2, "13:30": 1}},
        'bucket = "90m"',
    ),
    Case(
        "seconds",
        at("14:00:00", "14:00:01", "14:00:01.9"),
        {"login count": {"14:00": 3}},
        'bucket = "1s"',
        retentions="1s:1d,1m:1y",
    ),
]

TIMES = [
    Case("microseconds", at("14:00:59.999999", "14:01:00.000001"), {"login count": {"14:00": 1, "14:01": 1}}),
    Case("no time", at(None, "14:00:00", None), {"login count": {"14:00": 1}}, rejected={"no_time": 2}),
    Case("far past", at("1901-01-01 00:00:00", "2025-09-20 00:00:00"), {}, rejected={"too_old": 2}),
    Case("before the epoch", at("1969-12-31 23:59:59.5", "1970-01-01 00:00:00"), {}, rejected={"too_old": 2}),
    Case("far future", at("2106-02-07 06:28:16", "9999-12-31 23:59:59"), {}, rejected={"future": 2}),
    Case(
        "near future",
        at("14:14:59", "14:20:59", "14:21:00"),
        {"login count": {"14:14": 1, "14:20": 1}},
        rejected={"future": 1},
    ),
    Case(
        "zone west",
        at("09:00:00", "09:59:59"),
        {"login count": {"13:00": 1, "13:59": 1}},
        'time_zone = "America/New_York"',
    ),
    Case(
        "zone half an hour off",
        at("19:00:00", "19:30:00"),
        {"login count": {"13:30": 1, "14:00": 1}},
        'time_zone = "Asia/Kolkata"',
    ),
    Case(
        "zone, hours",
        at("19:00:00", "19:29:59", "19:30:00"),
        {"login count": {"13:00": 2, "14:00": 1}},
        'time_zone = "Asia/Kolkata"\nbucket = "1h"',
        zoom=3600,
    ),
    Case(
        "zone, the repeated hour at the end of DST",
        at("2025-10-26 01:59:59", "2025-10-26 02:30:00", "2025-10-26 03:00:00"),
        {"login count": {"2025-10-25 23:00:00": 1, "2025-10-26 00:00:00": 1, "2025-10-26 02:00:00": 1}},
        'time_zone = "Europe/Berlin"',
        zoom=3600,
    ),
    Case(
        "zone, no time",
        at(None, "16:00:00"),
        {"login count": {"14:00": 1}},
        'time_zone = "Europe/Berlin"',
        rejected={"no_time": 1},
    ),
]

_MS = [1789999200000, 1789999259999, 1789999260000]
_STORED_TIMES = 'by = ["outcome"]\nname = "x.{outcome}.{measure}"\n'
_EITHER = """time_sql = "CASE WHEN outcome = 'ok' THEN created_at ELSE end_date END"\n"""

STORED_TIMES = [
    Case(
        "milliseconds since 1970",
        [Event(number, None, amount=amount) for number, amount in enumerate([*_MS, None, 0, -1], 1)],
        {"login count": {"14:00": 2, "14:01": 1}},
        'time = "amount"\ntime_unit = "ms"',
        rejected={"no_time": 2, "too_old": 1},
    ),
    Case(
        "number that is set later",
        [Event(1, None, amount=0), Event(2, None, amount=1789999500)],
        {"login count": {"14:05": 1, "14:06": 1}},
        'time = "amount"\ntime_unit = "s"\nlookback = "15m"',
        updates=["UPDATE audit_trail SET amount = 1789999560 WHERE id = 1"],
    ),
    Case(
        "texts with offsets",
        actions("2026-09-21T16:00:00+02:00", "2026-09-21 14:00:59.9Z", "2026-09-21 10:01", "20260921T140100Z", "x"),
        {"ok count": {"14:00": 2, "14:01": 2}},
        f'{_STORED_TIMES}time = "action"\ntime_zone = "America/New_York"',
        rejected={"no_time": 1},
    ),
    Case(
        "text that is set later",
        actions("", "2026-09-21T16:05:00+02:00"),
        {"ok count": {"14:05": 1, "14:06": 1}},
        f'{_STORED_TIMES}time = "action"\nlookback = "15m"',
        updates=["UPDATE audit_trail SET action = '2026-09-21T16:06:00+02:00' WHERE id = 1"],
    ),
    Case(
        "time_sql",
        [
            Event(1, "14:00:00", duration_ms=5),
            Event(2, "14:00:00", outcome="x", end_date="14:01:00", duration_ms=7),
            Event(3, "14:00:00", outcome="x", duration_ms=7),
            Event(4, "14:00:00", duration_ms=1),
        ],
        {"login count": {"14:00": 1, "14:01": 1}, "login ms": {"14:00": 5, "14:01": 7}},
        f'{_EITHER}measure = {{ count = "count", ms = "sum:duration_ms" }}\nwhere = {{ duration_ms = {{ gt = 1 }} }}',
        rejected={"no_time": 1},
    ),
    Case(
        "time_sql that changes later",
        [Event(1, outcome="x"), Event(2, "14:05:00")],
        {"login count": {"14:05": 1, "14:06": 1}},
        f'{_EITHER}lookback = "15m"',
        updates=["UPDATE audit_trail SET end_date = '2026-09-21 14:06:00' WHERE id = 1"],
    ),
    Case(
        "time_sql with a number",
        [Event(number, None, amount=amount) for number, amount in enumerate([*_MS, None], 1)],
        {"login count": {"14:00": 2, "14:01": 1}},
        'time_sql = "amount + 0"\ntime_unit = "ms"',
        rejected={"no_time": 1},
    ),
]

CONDITIONS = [
    _where('where = { outcome = "ok" }', 1, "a value"),
    _where('where = { outcome = ["ok", "failure"] }', 3, "any of several"),
    _where('where = { outcome = { not = "ok" } }', 3, "not a value"),
    _where('where = { outcome = { not = ["ok", "failure"] } }', 1, "none of several"),
    _where('where = { outcome = { like = "login_%" } }', 1, "like"),
    _where('where = { outcome = { like = "%i%" } }', 3, "like within"),
    _where("where = { duration_ms = { ge = 10, lt = 30 } }", 2, "a range"),
    _where("where = { duration_ms = { gt = 10 } }", 2, "more than"),
    _where("where = { duration_ms = { le = 10 } }", 2, "at most"),
    _where("where = { outcome = { null = true } }", 1, "null"),
    _where("where = { outcome = { null = false } }", 4, "not null"),
    _where("where = { duration_ms = { not = 10 } }", 3, "not a number"),
    _where("where = { id = [1, 3], duration_ms = 5 }", 1, "two columns"),
    _where("where = { created_at = { ge = 2026-09-21 14:00:01 } }", 0, "a time"),
    _where('where_sql = "duration_ms * 2 > 20 OR outcome IS NULL"', 2, "sql"),
    _where('where = { outcome = "failure" }\nwhere_sql = "duration_ms IS NULL"', 1, "sql and more"),
    _where("where_sql = \"outcome = '-- x (' OR duration_ms = 5\"", 1, "sql with quotes"),
    _where("where_sql = \"outcome LIKE '%ail%' AND ':x' = ':x'\"", 2, "sql with percent and colon"),
    _where('where = { outcome = "nothing" }', 0, "nothing"),
]

MEASURES = [
    Case(
        "measures",
        [Event(1, duration_ms=5), Event(2, duration_ms=7), Event(3, duration_ms=-1)],
        {
            "login count": {"14:00": 3},
            "login ms": {"14:00": 11},
            "login slowest": {"14:00": 7},
            "login fastest": {"14:00": -1},
        },
        _MEASURES,
    ),
    Case(
        "measures of nothing",
        [Event(1), Event(2, "14:01:00", duration_ms=0)],
        {
            "login count": {"14:00": 1, "14:01": 1},
            "login ms": {"14:01": 0},
            "login slowest": {"14:01": 0},
            "login fastest": {"14:01": 0},
        },
        _MEASURES,
    ),
    Case(
        "sum of decimals",
        [Event(1, amount=0.5), Event(2, amount=0.25), Event(3, amount=-1.0)],
        {"login sum": {"14:00": -0.25}},
        'measure = { sum = "sum:amount" }',
    ),
    Case(
        "sum that becomes an integer",
        [Event(1, amount=0.5), Event(2, amount=0.5)],
        {"login sum": {"14:00": 1}},
        'measure = { sum = "sum:amount" }',
    ),
    Case(
        "sum of large numbers",
        [Event(number, amount=2**55) for number in range(1, 20)],
        {"login sum": {"14:00": 19 * 2.0**55}},
        'measure = { sum = "sum:amount" }',
    ),
    Case(
        "extremes of decimals",
        [Event(1, amount=0.5), Event(2, amount=-2.25), Event(3, amount=1e3)],
        {"login most": {"14:00": 1000}, "login least": {"14:00": -2.25}},
        'measure = { most = "max:amount", least = "min:amount" }',
    ),
]

_USERS = 'measure = { count = "count", users = "distinct:outcome" }\n'
DISTINCT = [
    Case(
        "distinct",
        [
            *(Event(number, outcome=outcome) for number, outcome in enumerate(("x", "y", "x", None, "x"), 1)),
            Event(6, "14:01:00", outcome="x"),
            Event(7, "14:01:30", outcome="y"),
            Event(8, "14:02:00", outcome=None),
        ],
        {"login count": {"14:00": 5, "14:01": 2, "14:02": 1}, "login users": {"14:00": 2, "14:01": 2, "14:02": 0}},
        _USERS,
    ),
    Case(
        "distinct bytes",
        [
            Event(number, outcome=outcome)
            for number, outcome in enumerate(("a", "A", "a ", "\u00e4", "a", "\u00c4", ""), 1)
        ],
        {"login users": {"14:00": 6}},
        'measure = { users = "distinct:outcome" }',
    ),
    Case(
        "distinct long values",
        [Event(number, action="x" * 399 + end, outcome="o") for number, end in enumerate("abab", 1)],
        {"o users": {"14:00": 2}},
        'by = ["outcome"]\nname = "x.{outcome}.{measure}"\nmeasure = { users = "distinct:action" }',
    ),
    Case(
        "distinct in long groups",
        [
            Event(number, action="x" * 399 + end, outcome=outcome)
            for number, (end, outcome) in enumerate((("a", "o"), ("a", "p"), ("b", "o"), ("a", "o")), 1)
        ],
        {f"{_label('x' * 399 + 'a')} users": {"14:00": 2}, f"{_label('x' * 399 + 'b')} users": {"14:00": 1}},
        'measure = { users = "distinct:outcome" }',
    ),
    Case(
        "distinct numbers beside other measures",
        [
            Event(number, action=action, duration_ms=duration)
            for number, (action, duration) in enumerate((("a", 5), ("b", 5), ("a", 5), ("a", 7), ("b", None)), 1)
        ],
        {
            "a count": {"14:00": 3},
            "a ms": {"14:00": 17},
            "a values": {"14:00": 2},
            "a slowest": {"14:00": 7},
            "b count": {"14:00": 2},
            "b ms": {"14:00": 5},
            "b values": {"14:00": 1},
            "b slowest": {"14:00": 5},
        },
        'measure = { count = "count", ms = "sum:duration_ms", values = "distinct:duration_ms",'
        ' slowest = "max:duration_ms" }\n',
    ),
    Case(
        "distinct under conditions",
        [Event(number, outcome=outcome, duration_ms=number) for number, outcome in enumerate("xyzxyz", 1)],
        {"login count": {"14:00": 4}, "login users": {"14:00": 2}},
        _USERS + 'where = { outcome = ["x", "y", "z"] }\nwhere_sql = "duration_ms < 3 OR duration_ms BETWEEN 4 AND 5"',
    ),
    Case(
        "distinct of a day",
        [
            Event(number, time, outcome=outcome)
            for number, (time, outcome) in enumerate(
                (("00:00:00", "x"), ("09:00:00", "y"), ("14:00:00", "x"), ("2026-09-20 23:59:59", "z")), 1
            )
        ],
        {
            "login count": {"00:00": 3, "2026-09-20 00:00:00": 1},
            "login users": {"00:00": 2, "2026-09-20 00:00:00": 1},
        },
        _USERS + 'bucket = "1d"',
    ),
    Case(
        "distinct of a coarser archive: the largest bucket",
        [
            Event(number, f"2026-08-21 {time}", outcome=outcome)
            for number, (time, outcome) in enumerate(
                (("10:00:00", "x"), ("10:00:30", "y"), ("10:01:00", "x"), ("10:01:00", "z"), ("11:00:00", "w")), 1
            )
        ],
        {
            "login count": {"2026-08-21 10:00:00": 4, "2026-08-21 11:00:00": 1},
            "login users": {"2026-08-21 10:00:00": 2, "2026-08-21 11:00:00": 1},
        },
        _USERS,
        zoom=3600,
    ),
    Case(
        "distinct in a zone",
        [
            Event(number, time, outcome=outcome)
            for number, (time, outcome) in enumerate(
                (("19:00:00", "x"), ("19:29:59", "y"), ("19:29:59", "x"), ("19:30:00", "z")), 1
            )
        ],
        {"login count": {"13:00": 3, "14:00": 1}, "login users": {"13:00": 2, "14:00": 1}},
        _USERS + 'time_zone = "Asia/Kolkata"\nbucket = "1h"',
        zoom=3600,
    ),
    Case(
        "distinct in a zone, at the end of DST",
        [
            Event(number, f"2025-10-26 {time}", outcome=outcome)
            for number, (time, outcome) in enumerate(
                (("01:30:00", "x"), ("01:45:00", "y"), ("02:00:00", "x"), ("02:59:59", "x"), ("03:00:00", "z")), 1
            )
        ],
        {
            "login count": {"2025-10-25 23:00:00": 2, "2025-10-26 00:00:00": 2, "2025-10-26 02:00:00": 1},
            "login users": {"2025-10-25 23:00:00": 2, "2025-10-26 00:00:00": 1, "2025-10-26 02:00:00": 1},
        },
        _USERS + 'time_zone = "Europe/Berlin"\nbucket = "1h"',
        zoom=3600,
    ),
    Case(
        "distinct with texts of several offsets",
        [
            Event(1, action="2026-09-21T16:00:00+02:00", amount=1),
            Event(2, action="2026-09-21 10:00:30", amount=1),
            Event(3, action="2026-09-21 14:00:59Z", amount=2),
            Event(4, action="2026-09-21 10:01", amount=1),
            Event(5, action="x", amount=3),
        ],
        {"ok count": {"14:00": 3, "14:01": 1}, "ok users": {"14:00": 2, "14:01": 1}},
        f'{_STORED_TIMES}time = "action"\ntime_zone = "America/New_York"\n'
        'measure = { count = "count", users = "distinct:amount" }',
        rejected={"no_time": 1},
    ),
    Case(
        "distinct with zeros",
        [Event(1, "14:10:00", outcome="x"), Event(2, "14:12:00", outcome="y"), Event(3, "14:12:00", outcome="x")],
        {
            "login count": {"14:10": 1, "14:11": 0, "14:12": 2, "14:13": 0, "14:14": 0},
            "login users": {"14:10": 1, "14:11": 0, "14:12": 2, "14:13": 0, "14:14": 0},
        },
        _USERS + 'zeros = "7d"',
        has_order=False,
    ),
    Case(
        "distinct from now",
        [
            Event(number, time, outcome=outcome)
            for number, (time, outcome) in enumerate(
                (("14:13:59", "w"), ("14:14:00", "x"), ("14:14:30", "y"), ("14:14:40", "x")), 1
            )
        ],
        {"login count": {"14:14": 3}, "login users": {"14:14": 2}},
        _USERS + 'start = "now"',
        there_before=2,
    ),
    Case(
        "distinct with a lookback",
        [
            Event(1, "14:05:00", outcome="x"),
            Event(2, "14:05:00", outcome="y"),
            Event(3, "14:06:00", outcome="z"),
            Event(4, "13:00:00", outcome="u"),
            Event(5, "13:00:00", outcome="v"),
        ],
        {
            "login count": {"13:00": 2, "14:05": 2, "14:06": 1},
            "login users": {"13:00": 2, "14:05": 1, "14:06": 1},
        },
        _USERS + 'lookback = "15m"',
        updates=["UPDATE audit_trail SET outcome = 'x' WHERE id = 2"],
    ),
    Case(
        "distinct, deleted within a lookback",
        [Event(number, outcome=outcome) for number, outcome in enumerate("xyz", 1)],
        {"login count": {"14:00": 1}, "login users": {"14:00": 1}},
        _USERS + 'lookback = "15m"',
        updates=["DELETE FROM audit_trail WHERE id = 2", "DELETE FROM audit_trail WHERE id = 1"],
    ),
]

NAMES = [
    Case(
        "names of long values",
        actions(*["x" * 399 + "a", "x" * 399 + "b"] * 2, "y" * 399),
        {"named count": {"14:00": 2}, f"{_label('x' * 399 + 'b')} count": {"14:00": 2}, "short count": {"14:00": 1}},
        f'names.action = {{ "{"x" * 399}a" = "named", "{"y" * 399}" = "short" }}',
    ),
    Case(
        "case",
        actions("Login", "login", "LOGIN"),
        {f"{name} count": {"14:00": 1} for name in ("Login", "login", "LOGIN")},
    ),
    Case("blanks", actions("a", "a ", " a"), {f"{name} count": {"14:00": 1} for name in ("a", "a ", " a")}),
    Case(
        "null and empty",
        actions(None, "", "none", "empty"),
        {f"{name} count": {"14:00": 1} for name in ("NULL", "", "none", "empty")},
    ),
    Case(
        "collisions",
        actions("a b", "a_b", "a.b", "a/b", "a b"),
        {"a b count": {"14:00": 2}, "a_b count": {"14:00": 1}, "a.b count": {"14:00": 1}, "a/b count": {"14:00": 1}},
    ),
    Case(
        "poison",
        actions("a\nb 1 2", "..", "*", "{x}", "a;b=c", "\u00e9\u4e16", "x" * 64),
        {f"{name} count": {"14:00": 1} for name in ("a\nb 1 2", "..", "*", "{x}", "a;b=c", "\u00e9\u4e16", "x" * 64)},
    ),
    Case(
        "quotes",
        actions("it's", 'a"b', "a\\b", "%s", ":x"),
        {f"{name} count": {"14:00": 1} for name in ("it's", 'a"b', "a\\b", "%s", ":x")},
    ),
    Case(
        "tags",
        actions("a", "b c"),
        {"a count": {"14:00": 1}, "b c count": {"14:00": 1}},
        'name = "x.{measure}"\ntags = { action = "{action}", dc = "eu" }',
    ),
]

_ONE_LINE = ["a\rb", "a\r\nb", "a\tb", "a\x1cb", "a\x85b", "a\u00a0b", "a\u2028b", "a\u2029b", " ", "\n", "\u3000"]
_PATHS = ["a", "/", "a/b", "../../etc", ".", "a..b", ".a", "a.", "a;b=c", ";", ";=", "a;b=~c", "-", "_other", "_"]
_VALUES = ["nan", "inf", "a 1 1790000040", "a 5 -1\nx.b.count 7 1790000040", "'; DROP TABLE audit_trail; --"]
_LONG = [
    *("x" * 300, "x" * 299 + "y", "x" * 299 + "Y", "x" * 299 + " ", "x" * 100, "x" * 101),
    *("\u4e16" * 300, "a\n" * 150, "\U0001f600" * 100, "\U0001f600" * 101),
]


def _named(kind: str, names: list[str], *, without: str = "") -> Case:
    """Return the case of groups that are hard to name beside a normal one: each is a separate series."""
    expected: dict[str, dict[str, float]] = {f"{_label(name)} count": {"14:00": 2} for name in ["good", *names]}
    return Case(f"poison {kind}", actions(*["good", *names] * 2), expected, without=without)


POISON = [
    _named("lines", _ONE_LINE),
    _named("paths", _PATHS),
    _named("values", _VALUES),
    _named("lengths", _LONG),
    _named("nul", ["\0", "a\0b", "a\0c"], without="postgresql"),
    Case(
        "poison groups beyond a line",
        [Event(1, action="\u4e16" * 300, outcome="y" * 16), Event(2, action="good", outcome="y")],
        {"good|y count": {"14:00": 1}},
        'by = ["action", "outcome"]\nname = "' + "{action}" * 3 + '.{outcome}.{measure}"',
        rejected={"refused": 1},
    ),
    Case(
        "poison measures",
        [Event(number, ratio=ratio) for number, ratio in enumerate((5.5, 1e305, -1e305, None, 2.0, 1.7e308, -7), 1)],
        {
            "login count": {"14:00": 7},
            "login all": {"14:00": 0.5},
            "login most": {"14:00": 5.5},
            "login least": {"14:00": -7},
        },
        'measure = { count = "count", all = "sum:ratio", most = "max:ratio", least = "min:ratio" }',
        rejected_values={"ratio": 3},
    ),
    Case(
        "poison measures among groups and columns",
        [
            Event(1, action="a", ratio=1e305, amount=1),
            Event(2, action="b", ratio=3, duration_ms=4),
            Event(3, "14:01:00", action="a", ratio=-3),
            Event(4, action="a", duration_ms=5, amount=0.5),
        ],
        {
            "a ms": {"14:00": 5},
            "a amount": {"14:00": 1.5},
            "a ratio": {"14:01": -3},
            "b ms": {"14:00": 4},
            "b ratio": {"14:00": 3},
        },
        'measure = { ms = "sum:duration_ms", amount = "sum:amount", ratio = "max:ratio" }',
        rejected_values={"ratio": 1},
    ),
    Case(
        "poison measures under a condition",
        [Event(1, outcome="x", ratio=1e305), Event(2, outcome="y", ratio=-1e305), Event(3, outcome="y", ratio=1)],
        {"login ratio": {"14:00": 1}},
        'where = { outcome = "y" }\nmeasure = { ratio = "sum:ratio" }',
        rejected_values={"ratio": 1},
    ),
    Case(
        "poison in sql",
        [Event(1, action="a", ratio=5.5), Event(2, action="b", ratio=1e305), Event(3, action="c\n", ratio=1)],
        {
            "a n": {"14:00": 1},
            "a ms": {"14:00": 5.5},
            "b n": {"14:00": 1},
            "c\n n": {"14:00": 1},
            "c\n ms": {"14:00": 1},
        },
        "sql = 'SELECT action, created_at AS bucket, COUNT(*) AS n, SUM(ratio) AS ms FROM audit_trail"
        " WHERE id > :after AND id <= :upto GROUP BY action, created_at'\n",
        rejected_values={"ms": 1},
    ),
]

IDS = [
    Case(
        "holes",
        [*at("14:00:00", "14:00:01"), *at("14:00:02", start=10**12), *at("14:00:03", start=10**18)],
        {"login count": {"14:00": 4}},
    ),
    Case("largest id", at("14:00:00", start=2**63 - 1), {"login count": {"14:00": 1}}),
    Case(
        "from an id",
        at(*["13:00:00"] * 3, *["14:00:00"] * 3),
        {"login count": {"13:00": 3, "14:00": 3}},
        "start = 3",
        there_before=6,
    ),
    Case(
        "from an id within a slot",
        at(*["14:00:00"] * 4, "14:01:00"),
        {"login count": {"14:00": 4, "14:01": 1}},
        "start = 2",
        there_before=5,
    ),
    Case(
        "from now",
        at("13:00:00", "14:13:59", "14:14:00", "14:14:30"),
        {"login count": {"14:14": 2}},
        'start = "now"',
        there_before=3,
    ),
    Case(
        "from now, for a slot of before",
        at("14:00:00", "14:00:00", "14:14:01"),
        {"login count": {"14:14": 1}},
        'start = "now"',
        rejected={"too_late": 1},
        there_before=1,
    ),
]

AGES = [
    Case(
        "hours of last month",
        at("2026-08-21 10:00:00", "2026-08-21 10:59:00", "2026-08-21 11:00:00"),
        {"login count": {"2026-08-21 10:00:00": 2, "2026-08-21 11:00:00": 1}},
        zoom=3600,
    ),
    Case(
        "before and after the edge",
        at("2026-09-14 11:59:00", "2026-09-14 11:00:00", "2026-09-14 15:00:00", "2026-09-14 15:01:00"),
        {"login count": {"2026-09-14 11:00:00": 2, "2026-09-14 15:00:00": 2}},
        zoom=3600,
    ),
    Case(
        "measures of last month",
        [Event(number, "2026-08-21 10:00:00", duration_ms=number) for number in (3, 5, 4)],
        {
            "login count": {"2026-08-21 10:00:00": 3},
            "login ms": {"2026-08-21 10:00:00": 12},
            "login slowest": {"2026-08-21 10:00:00": 5},
            "login fastest": {"2026-08-21 10:00:00": 3},
        },
        _MEASURES,
        zoom=3600,
    ),
    Case(
        "hourly buckets need no edge",
        at("2026-09-14 13:00:00", "2026-09-14 14:00:00", "2026-09-14 15:00:00"),
        {"login count": {f"2026-09-14 {hour}:00:00": 1 for hour in (13, 14, 15)}},
        'bucket = "1h"',
        zoom=3600,
    ),
    Case(
        "one archive",
        at("2026-09-21 10:00:00", "2026-09-10 10:00:00"),
        {"login count": {"10:00": 1}},
        rejected={"too_old": 1},
        retentions="1m:7d",
    ),
    Case(
        "three archives",
        at(
            "2026-09-21 10:00:30",
            "2026-09-15 10:00:00",
            "2026-09-15 10:59:00",
            "2026-07-01 01:00:00",
            "2026-07-01 23:00:00",
        ),
        {"login count": {"2026-09-21 00:00:00": 1, "2026-09-15 00:00:00": 2, "2026-07-01 00:00:00": 2}},
        zoom=86400,
        retentions="1m:2d,1h:30d,1d:5y",
    ),
]

ZEROS = [
    Case(
        "zeros",
        at("14:10:00", "14:12:00"),
        {"login count": {"14:10": 1, "14:11": 0, "14:12": 1, "14:13": 0}},
        'zeros = "7d"',
        has_order=False,
    ),
    Case(
        "no zeros before a group was seen",
        at("14:13:00"),
        {"login count": {"14:13": 1}},
        'zeros = "7d"',
        has_order=False,
    ),
    Case(
        "no zeros for extremes",
        [Event(1, "14:12:00", duration_ms=3)],
        {"login most": {"14:12": 3}},
        'zeros = "7d"\nmeasure = { most = "max:duration_ms" }',
        has_order=False,
    ),
    Case(
        "zeros for as long as seen",
        at("14:00:00"),
        {"login count": {"14:00": 1.0} | {f"14:0{minute}": 0.0 for minute in range(1, 6)}},
        'zeros = "5m"',
        has_order=False,
    ),
]

LOOKBACK = [
    Case(
        "completed later",
        [Event(1, end_date=None), Event(2, end_date="14:05:00")],
        {"login count": {"14:05": 1, "14:06": 1}},
        'time = "end_date"\nlookback = "15m"',
        updates=["UPDATE audit_trail SET end_date = '2026-09-21 14:06:00' WHERE id = 1"],
    ),
    Case(
        "never completed",
        [Event(1, end_date=None), Event(2, end_date="14:05:00")],
        {"login count": {"14:05": 1}},
        'time = "end_date"\nlookback = "15m"',
    ),
    Case(
        "changed within the span",
        [Event(1, "14:05:00"), Event(2, "14:05:00"), Event(3, "14:06:00")],
        {"login count": {"14:05": 1, "14:06": 2}},
        'lookback = "15m"',
        updates=["UPDATE audit_trail SET created_at = '2026-09-21 14:06:00' WHERE id = 2"],
    ),
    Case(
        "moved to another group",
        [Event(1, "14:05:00"), Event(2, "14:05:00")],
        {"login count": {"14:05": 1}, "logout count": {"14:05": 1}},
        'lookback = "15m"',
        updates=["UPDATE audit_trail SET action = 'logout' WHERE id = 2"],
    ),
    Case(
        "deleted within the span",
        at("14:05:00", "14:05:00", "14:05:00"),
        {"login count": {"14:05": 2}},
        'lookback = "15m"',
        updates=["DELETE FROM audit_trail WHERE id = 2"],
    ),
    Case(
        "history with a lookback",
        at("2026-08-21 10:00:00", "2026-08-21 10:30:00", "14:00:00"),
        {"login count": {"2026-08-21 10:00:00": 2, "14:00": 1}},
        'lookback = "15m"',
        there_before=3,
        zoom=3600,
    ),
]

SQL = [
    Case(
        "sql",
        [Event(1, action="a", duration_ms=5), Event(2, action="a", duration_ms=7), Event(3, action="b")],
        {"a n": {"14:00": 2}, "a ms": {"14:00": 12}, "b n": {"14:00": 1}},
        "sql = 'SELECT action, created_at AS bucket, COUNT(*) AS n, SUM(duration_ms) AS ms FROM audit_trail"
        " WHERE id > :after AND id <= :upto GROUP BY action, created_at'\n",
    ),
    Case(
        "sql with a join",
        [Event(1, action="a", outcome="x"), Event(2, action="b", outcome="x"), Event(3, action="a", outcome="y")],
        {"x n": {"14:00": 1}, "y n": {"14:00": 1}},
        "sql = '''SELECT t.outcome, MIN(t.created_at) AS bucket, COUNT(*) AS n FROM audit_trail t"
        " JOIN (SELECT 'a' AS name) names ON names.name = t.action"
        " WHERE t.id > :after AND t.id <= :upto GROUP BY t.outcome'''\n"
        'by = ["outcome"]\nname = "x.{outcome}.{measure}"',
    ),
    Case(
        "sql with epochs beside a time zone",
        [Event(1, None, amount=1789999230), Event(2, None, amount=1789999289.5), Event(3, None)],
        {"login n": {"14:00": 1, "14:01": 1}},
        "sql = 'SELECT action, amount AS bucket, COUNT(*) AS n FROM audit_trail"
        ' WHERE id > :after AND id <= :upto GROUP BY action, amount\'\ntime_zone = "Europe/Berlin"',
        rejected={"no_time": 1},
    ),
    Case(
        "sql with offsets beside a time zone",
        actions("2026-09-21T14:00:30Z", "2026-09-21 10:00:59-04:00", "2026-09-21 16:01:00"),
        {"ok n": {"14:00": 2, "14:01": 1}},
        "sql = 'SELECT outcome, action AS bucket, COUNT(*) AS n FROM audit_trail"
        " WHERE id > :after AND id <= :upto GROUP BY outcome, action'\n"
        'by = ["outcome"]\nname = "x.{outcome}.{measure}"\ntime_zone = "Europe/Berlin"',
    ),
]

CASES = [
    *(*ROWS, *TIMES, *STORED_TIMES, *CONDITIONS, *MEASURES, *DISTINCT, *NAMES, *POISON, *IDS, *AGES, *ZEROS),
    *(*LOOKBACK, *SQL),
]
