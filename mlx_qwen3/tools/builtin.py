"""The built-in tools, get_time and calculator: quick, without side effects and network."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from mlx_qwen3.tools.function import tool

Number = int | float

# Cities that no time zone is named after.
_MORE_CITIES = {
    "America/Chicago": "houston|dallas",
    "America/Los_Angeles": "san francisco|seattle|las vegas|san diego",
    "America/New_York": "boston|miami|washington|washington dc|atlanta|philadelphia",
    "America/Sao_Paulo": "são paulo|rio de janeiro|rio",
    "America/Toronto": "montreal|ottawa",
    "Asia/Dubai": "abu dhabi",
    "Asia/Ho_Chi_Minh": "hanoi",
    "Asia/Kolkata": "delhi|new delhi|mumbai|bangalore|chennai",
    "Asia/Shanghai": "beijing|shenzhen|guangzhou",
    "Asia/Tokyo": "osaka|kyoto",
    "Australia/Sydney": "canberra",
    "Europe/Berlin": "hamburg|munich|münchen|cologne|köln|frankfurt",
    "Europe/Kyiv": "kyiv",
    "Europe/Lisbon": "porto",
    "Europe/London": "manchester|edinburgh",
    "Europe/Madrid": "barcelona|seville",
    "Europe/Paris": "lyon|marseille",
    "Europe/Rome": "milan|naples|florence",
    "Europe/Zurich": "zürich|bern|geneva|basel",
    "Pacific/Auckland": "wellington",
}
_CITIES = {city: zone for zone, cities in _MORE_CITIES.items() for city in cities.split("|")}


@tool
def get_time(city: str) -> str:
    """Get the current time in a city

    city: City name
    """
    zone = _find_zone(city)
    return f"{datetime.now(zone):%Y-%m-%d %H:%M}"


def _find_zone(place: str) -> ZoneInfo | None:
    """The time zone of a city, or of a zone's name. None, which is local time, for an empty place."""
    city = place.split(",")[0].strip().casefold()
    if not city:
        return None
    if city in _CITIES:
        return ZoneInfo(_CITIES[city])
    names = sorted(available_timezones())
    zone_city = city.replace(" ", "_")
    for name in names:
        if name.casefold() == place.strip().casefold() or name.rpartition("/")[2].casefold() == zone_city:
            return ZoneInfo(name)
    raise ValueError(
        f'no time zone known for "{place}"; try a larger city nearby, or a name such as Europe/Paris'
    )


def _round(value: Number, digits: Number | None = None) -> Number:
    """round(), refused for more digits than a result may have: it would compute 10**digits."""
    if digits is None:
        return round(value)
    if not isinstance(digits, int) or abs(digits) > MAX_DIGITS:
        raise ValueError(f"round takes a whole number of digits, {MAX_DIGITS:,} at most")
    return round(value, digits)


_OPERATORS: dict[type, Callable[..., Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
_FUNCTIONS: dict[str, Callable[..., Number]] = {
    "abs": abs,
    "round": _round,
    "sqrt": math.sqrt,
    "floor": math.floor,
    "ceil": math.ceil,
    "exp": math.exp,
    "ln": math.log,
    "log": math.log,
    "log10": math.log10,
    "sin": math.sin,
    "cos": math.cos,
    "tan": math.tan,
}
_CONSTANTS = {"pi": math.pi, "e": math.e}
MAX_DIGITS = 1000
_SPELLINGS = str.maketrans({"×": "*", "÷": "/", "−": "-", "^": "**", "·": "*"})


@tool(timeout=5)
def calculator(expression: str) -> str:
    """Evaluate an arithmetic expression

    expression: The expression, e.g. 2 + 2
    """
    if len(expression) > 500:
        raise ValueError("the expression is too long")
    try:
        tree = ast.parse(expression.translate(_SPELLINGS).strip().rstrip("=").strip(), mode="eval")
        result = _evaluate(tree.body)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f'"{expression}" is not an arithmetic expression') from None
    if isinstance(result, float) and result.is_integer() and abs(result) < 1e15:
        result = int(result)
    return f"{result:.12g}" if isinstance(result, float) else str(result)


def _evaluate(node: ast.expr) -> Number:
    """The value of a syntax tree of numbers, operators and a few functions. All else is a ValueError."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return _checked(value)
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_evaluate(operand))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_evaluate(left), _evaluate(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _checked(_OPERATORS[type(op)](_evaluate(left), _evaluate(right)))
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _checked(_FUNCTIONS[name](*map(_evaluate, args)))
    raise ValueError(f"{ast.unparse(node)} is not arithmetic this calculator knows")


def _power(base: Number, exponent: Number) -> Number:
    """base**exponent, refused before computing it if the result would be too large."""
    if abs(base) > 1 and abs(exponent) * math.log10(abs(base)) > MAX_DIGITS:
        raise ValueError("the result has too many digits")
    return _checked(base**exponent)


def _checked(value: Number | complex) -> Number:
    if isinstance(value, complex) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError("the result is not a real number")
    if isinstance(value, int) and value.bit_length() > 4 * MAX_DIGITS:
        raise ValueError("the result has too many digits")
    return value
