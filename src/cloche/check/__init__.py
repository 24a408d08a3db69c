"""Judging workflow files and expressions, and telling what is wrong with them: for people, editors and programs."""
