"""The agent that runs inside a guest: standard library only, imports nothing else of Cloche.

It starts with every sandbox and boots with every template, so it leaves out what is dear to import: it has no
dataclasses (and with them inspect), and not even ``typing``, for whose constant its modules have one of their own.
"""
