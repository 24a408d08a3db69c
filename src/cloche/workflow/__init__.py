"""What the user wrote in a workflow file: read, checked, planned. Pure: no I/O, no asyncio."""
