"""The clock's tests; one of them fails, and it is right."""

import unittest

from clock import strokes


class ClockTest(unittest.TestCase):
    """What everybody in the village knows."""

    def test_the_morning(self) -> None:
        """One stroke an hour."""
        self.assertEqual(strokes(7), 7)

    def test_the_evening(self) -> None:
        """The clock has no thirteenth stroke."""
        self.assertEqual(strokes(19), 7)

    def test_noon(self) -> None:
        """Noon is the longest."""
        self.assertEqual(strokes(12), 12)
