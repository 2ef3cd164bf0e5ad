"""Numbers and foreign text to readable text; the only place where a fraction becomes a percentage.

Rounding never hides a difference: a figure that would round to 0, or to 100 %, gets more digits until it no longer does, so
that "0 %", "100 %" and "0 pt" are printed only when they are exactly so. Minus is U+2212, a unit never leaves its number.
"""

from __future__ import annotations

import math
import unicodedata
from datetime import datetime, timezone

NBSP = "\u00a0"
MINUS = "\u2212"
_MOST_DIGITS = 6
_KEPT_FORMAT_CHARACTERS = frozenset("\u00ad\u200c\u200d") | {chr(c) for c in range(0xE0020, 0xE0080)}
"""Soft hyphen, the joiners that Persian and emoji need, and the tags of flag emoji."""


def percent(fraction: float, digits: int = 1) -> str:
    """A fraction as a percentage.

    >>> [percent(x).replace(NBSP, " ") for x in (0.5, 0, 1, 0.9996, 0.00004)]
    ['50.0 %', '0 %', '100 %', '99.96 %', '0.004 %']
    """
    if fraction in (0.0, 1.0):
        return f"{int(fraction * 100)}{NBSP}%"
    return f"{_honest(100 * fraction, digits, away_from=(0.0, 100.0))}{NBSP}%"


def points(fraction: float, digits: int = 1, signed: bool = True) -> str:
    """A difference of two shares in percentage points, with its sign.

    >>> [points(x).replace(NBSP, " ") for x in (0.0312, -0.0004, 0.0)]
    ['+3.1 pt', '−0.04 pt', '0 pt']
    """
    return f"{_points(fraction, digits, signed)}{NBSP}pt"


def points_interval(low: float, high: float, digits: int = 1) -> str:
    """Both ends of an interval in points.

    >>> points_interval(-0.012, 0.031)
    '[−1.2, +3.1]'
    """
    return f"[{_points(low, digits, True)}, {_points(high, digits, True)}]"


def percent_interval(low: float, high: float, digits: int = 1) -> str:
    """Both ends of an interval in percent; the unit stands once, beside the value.

    >>> percent_interval(0.5, 1.0)
    '[50.0, 100]'
    """
    return f"[{percent(low, digits)[:-2]}, {percent(high, digits)[:-2]}]"


def cosine(value: float) -> str:
    """A cosine; 1 only where two things point exactly the same way.

    >>> cosine(0.98765), cosine(0.99996), cosine(1.0), cosine(-0.25)
    ('0.988', '0.99996', '1', '−0.250')
    """
    return "1" if value == 1.0 else _honest(value, 3, away_from=(1.0,))


def ratio(value: float) -> str:
    """How many times as much: three digits, or two decimals.

    >>> ratio(0.9234), ratio(1.0), ratio(20.46), ratio(123.4)
    ('0.92', '1.00', '20.5', '123')
    """
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 100 else f"{value:.0f}"


def p_value(p: float) -> str:
    """A p-value with two significant digits, never below what anyone reads.

    >>> [p_value(p) for p in (0.0312, 0.5, 1.0, 0.0, 3e-7)]
    ['0.031', '0.50', '1', '< 0.0001', '< 0.0001']
    """
    if p >= 1.0:
        return "1"
    if p < 0.0001:
        return "< 0.0001"
    return f"{p:.2f}" if p >= 0.095 else f"{p:.3f}" if p >= 0.0095 else f"{p:.4f}"


def level(alpha: float) -> str:
    """The level that a p-value is compared with, short but exact enough to compare.

    >>> level(0.05), level(0.025 / 12)
    ('0.05', '0.00208')
    """
    return f"{alpha:.3g}"


def size(n_bytes: int) -> str:
    """Bytes in decimal units, as disks and hubs count them.

    >>> [size(n).replace(NBSP, " ") for n in (0, 999, 1_500, 134_515_008)]
    ['0 B', '999 B', '1.5 kB', '134.5 MB']
    """
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.95:
            return f"{value:.0f}{NBSP}{unit}" if unit == "B" else f"{value:.1f}{NBSP}{unit}"
        value /= 1000
    return f"{value:.1f}{NBSP}TB"


def round_size(n_bytes: int) -> str:
    """A size that is a round number, as an axis prints it.

    >>> [round_size(n).replace(NBSP, " ") for n in (0, 50_000_000, 1_500_000_000)]
    ['0', '50 MB', '1.5 GB']
    """
    return "0" if n_bytes == 0 else size(n_bytes).replace(f".0{NBSP}", NBSP)


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> [duration(s).replace(NBSP, " ") for s in (0, 0.04, 12.34, 75, 7384)]
    ['0 s', '0.04 s', '12.3 s', '1 min 15 s', '2 h 3 min']
    """
    if seconds < 60:
        return f"0{NBSP}s" if seconds == 0 else f"{_honest(seconds, 1, away_from=(0.0,))}{NBSP}s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}{NBSP}min" + (f" {whole % 60}{NBSP}s" if whole % 60 else "")
    return f"{whole // 3600}{NBSP}h {whole % 3600 // 60}{NBSP}min"


def moment(iso: str) -> str:
    """An ISO 8601 instant in UTC, to the minute.

    >>> moment("2031-05-06T09:08:07+02:00")
    '2031-05-06 07:08 UTC'
    """
    return parse_moment(iso).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def parse_moment(iso: str) -> datetime:
    """The instant of an ISO 8601 text; without an offset it is UTC. Raises ValueError."""
    made = datetime.fromisoformat(iso.replace("Z", "+00:00"))
    return made if made.tzinfo else made.replace(tzinfo=timezone.utc)


def count(n: int) -> str:
    """A count in groups of three.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{n:,}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> plural(1, "cell"), plural(3, "cell"), plural(2, "retry", "retries")
    ('1 cell', '3 cells', '2 retries')
    """
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def nats(value: float) -> str:
    """A log-likelihood or a margin in nats.

    >>> nats(-1.25), nats(-0.004), nats(0.0)
    ('−1.25', '−0.004', '0')
    """
    return "0" if value == 0 else _honest(value, 2, away_from=(0.0,))


def perplexity(nats: float) -> str:
    """The exponential of the mean nats a word (or byte): a number below a million; from there on the power of e that it is,
    because no number may hold it.

    >>> perplexity(0.0), perplexity(3.0), perplexity(13.8), perplexity(812.345)
    ('1.00', '20.09', '984,609.11', 'e^812.35')
    """
    return f"{math.exp(nats):,.2f}" if nats < math.log(1e6 - 0.005) else f"e^{nats:.2f}"


def bits(value: float) -> str:
    """Bits a weight.

    >>> bits(4.25), bits(16.0)
    ('4.25', '16')
    """
    return f"{value:.2f}".rstrip("0").rstrip(".")


def visible(text: str, longest: int | None = None) -> str:
    """Foreign text with every invisible or disorderly character shown, cut at ``longest`` characters.

    Control characters and marks that reorder or hide text become their code points; tabs and line breaks stay.

    >>> visible("a\\x00b\\u202ec")
    'a⟨U+0000⟩b⟨U+202E⟩c'
    """
    cut = text if longest is None or len(text) <= longest else text[:longest] + "…"
    if cut.isprintable():  # none of the categories below: most texts
        return cut
    return "".join(_visible(c) for c in cut)


def short_digest(digest: str) -> str:
    """The first twelve hex digits; report.json has them all."""
    return digest[:12]


def _visible(character: str) -> str:
    if character in "\n\t" or character in _KEPT_FORMAT_CHARACTERS:
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def _points(fraction: float, digits: int, signed: bool) -> str:
    if fraction == 0:
        return "0"
    text = _honest(100 * fraction, digits, away_from=(0.0,))
    return f"+{text}" if signed and fraction > 0 else text


def _honest(value: float, digits: int, away_from: tuple[float, ...]) -> str:
    """``value`` with at least ``digits`` decimals, more where fewer would round it onto a value that it is not."""
    for n in range(digits, _MOST_DIGITS + 1):
        text = f"{value:.{n}f}"
        if all(float(text) != edge for edge in away_from):
            return text.replace("-", MINUS)
    nearest = min(away_from, key=lambda edge: abs(edge - value))
    bound = nearest + 10.0**-_MOST_DIGITS * (1 if value > nearest else -1)
    sign = "<" if value > nearest else ">"
    return f"{sign}{bound:.{_MOST_DIGITS}f}".replace("-", MINUS)
