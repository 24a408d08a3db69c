"""Carrying a workflow out: the executor, jobs, steps, what steps say, and what must not be shown."""
