"""Month names in, calendar months out: what the steps of a sequence stand for."""

import re

_MONTH = re.compile(r"(\d{4})-(\d{2})")


def month_numbers(months: tuple[str, ...]) -> tuple[int, ...]:
    """Count months since year 0 for names `YYYY-MM`; raise `ValueError` for any other text."""
    numbers = []
    for text in months:
        found = _MONTH.fullmatch(text)
        if not found or not 1 <= int(found[2]) <= 12:
            raise ValueError(f"month {text!r} does not exist; expected YYYY-MM, e.g. '2022-03'")
        numbers.append(int(found[1]) * 12 + int(found[2]) - 1)
    return tuple(numbers)


def calendar_months(months: tuple[str, ...]) -> tuple[int, ...]:
    """Return 1 (January) to 12 for each of `months` (`YYYY-MM`).

    Raises `ValueError` unless they rise, each within twelve months of the one before: then the
    calendar months say everything about the steps but the year.
    """
    numbers = month_numbers(months)
    for before, after, text in zip(numbers, numbers[1:], months[1:], strict=False):
        if not 1 <= after - before <= 12:
            raise ValueError(
                f"month {text!r} follows one {after - before} months away; months must rise by "
                "1 to 12 at each step"
            )
    return tuple(number % 12 + 1 for number in numbers)
