"""The agent that runs inside a guest: standard library only, imports nothing else of Cloche."""
