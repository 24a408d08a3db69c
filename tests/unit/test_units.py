from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("512M", 512 * 1024**2),
        ("2GiB", 2 * 1024**3),
        ("2 gib", 2 * 1024**3),
        ("1.5g", 3 * 1024**3 // 2),
        ("7kb", 7 * 1024),
        ("1T", 1024**4),
        ("10B", 10),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "two", "-1G", "1X", "1GG", "1 2", "1e3", "٣", "1.G", "inf"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="2GiB"):
        parse_size(text)


@given(st.integers(min_value=0, max_value=1 << 50))
def test_bytes_read_back(size: int) -> None:
    assert parse_size(str(size)) == size


@given(st.integers(min_value=0, max_value=1 << 50))
def test_a_shown_size_reads_as_about_the_same(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=0.001)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (2 * 1024**3, "2 GiB"),
        (1 << 50, "1024 TiB"),
    ],
)
def test_sizes_as_people_read_them(size: int, text: str) -> None:
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0844, "84 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.0 s"),
        (1.84, "1.8 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3599.7, "1 h 0 min"),
        (12000, "3 h 20 min"),
    ],
)
def test_durations_as_people_read_them(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("30s", 30),
        ("10m", 600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2 H", 7200),
        ("1d", 86400),
        ("0", 0),
    ],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-1m", "1w", "m", "1h 30", "1e3s", "٣s", "inf", "1.m", "1.5"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="10m"):
        parse_duration(text)


@given(st.integers(min_value=60, max_value=1 << 20))
def test_a_shown_duration_reads_as_about_the_same(seconds: int) -> None:
    shown = format_duration(seconds).replace("min", "m")
    assert parse_duration(shown) == pytest.approx(seconds, abs=60)
