"""Points in time as RFC 3339 writes them, and as microseconds since the Unix epoch."""

from __future__ import annotations

import re
from typing import Final

_RFC_3339: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_MONTH_DAYS: Final = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_DAYS_BEFORE_1970: Final = 719_162
_SECOND: Final = 1_000_000
_DAYS_OF_400_YEARS: Final = 146_097


def instant(text: str) -> int | None:
    """The microseconds of an RFC 3339 time, None if it is none. A leap second is the next one."""
    match = _RFC_3339.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    fraction, sign, offset_hours, offset_minutes = match.groups()[6:]
    if not (1 <= month <= 12 and 1 <= day <= _days_of(year, month) and year):
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    offset = 0
    if sign is not None:
        if int(offset_hours) > 23 or int(offset_minutes) > 59:
            return None
        offset = int(sign + "1") * (int(offset_hours) * 3600 + int(offset_minutes) * 60)
    seconds = _days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset
    return seconds * _SECOND + int((fraction or "0").ljust(6, "0")[:6])


def rfc_3339(micros: int) -> str:
    """The instant in UTC, with as many digits of a second as it needs: three, six or none."""
    seconds, fraction = divmod(micros, _SECOND)
    days, second_of_day = divmod(seconds, 86_400)
    year, month, day = _date(days)
    hour, rest = divmod(second_of_day, 3600)
    minute, second = divmod(rest, 60)
    if not fraction:
        digits = ""
    else:
        digits = f".{fraction // 1000:03}" if not fraction % 1000 else f".{fraction:06}"
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{digits}Z"


def _is_leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _days_of(year: int, month: int) -> int:
    return _MONTH_DAYS[month - 1] + (month == 2 and _is_leap(year))


def _days_before(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 to this date."""
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400
    days += sum(_days_of(year, earlier) for earlier in range(1, month))
    return days + day - 1 - _DAYS_BEFORE_1970


def _date(days: int) -> tuple[int, int, int]:
    """Year, month and day, so many days after 1970-01-01."""
    year = 1 + (days + _DAYS_BEFORE_1970) * 400 // _DAYS_OF_400_YEARS
    # The estimate may be one too small on the first day of a year, and is never too large.
    if _days_before(year + 1, 1, 1) <= days:
        year += 1
    rest = days - _days_before(year, 1, 1)
    month = 1
    while rest >= _days_of(year, month):
        rest -= _days_of(year, month)
        month += 1
    return year, month, rest + 1
