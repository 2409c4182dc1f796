"""A time in a query: a date, and no number that could be taken for seconds."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from orchestrator.api.v2_schema import Moment

MOMENT: TypeAdapter[datetime] = TypeAdapter(Moment)


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", "2026-01-31 12:00:00+00:00"])
def test_date_and_time_is_taken(text: str) -> None:
    assert MOMENT.validate_python(text) == datetime(2026, 1, 31, 12, tzinfo=UTC)


NUMBERS = ("1769860800", "1769860800.5", "1.7e9", "1e-9", "-2.2250738585072014e-308", "-5", "nan", "20260131")


@pytest.mark.parametrize("text", [*NUMBERS, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_number_or_a_time_beyond_all_others_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        MOMENT.validate_python(text)
