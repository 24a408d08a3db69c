"""Cloche: GitHub-Actions workflows on your own machine, one microVM per workflow."""

__version__ = "0.1.0"
