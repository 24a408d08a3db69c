"""When a church clock strikes."""


def strokes(hour: int) -> int:
    """How many strokes tell an hour from 0 to 23. Wrong at noon and at midnight: a clock strikes twelve then."""
    return hour % 12
