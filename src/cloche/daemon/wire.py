"""What passes between ``cloche run`` and the daemon's runner. Imports nothing: both ends begin with it.

The client connects to ``run.sock`` and sends one request: its length (4 bytes, little-endian), then fields
separated by NUL, which none of them can hold, and with the first byte its standard input, output and error.
The runner answers with lines: ``pid N`` as soon as a process of its own has taken the request, ``exit N`` at
the end; or ``other`` when it is not of the client's version, and the client does without.
"""

from __future__ import annotations

RUN_SOCKET = "run.sock"
CONTROL_SOCKET = "control.sock"
LOCK = "lock"
MAX_REQUEST = 4 * 1024 * 1024
"""Bytes of a request: arguments and environment, of which Linux allows 2 MiB for a process."""
LONGEST_KEPT = 24 * 3600.0
"""Seconds that the daemon keeps the VM of a run that failed, at most."""
HEADER = 4
STREAMS = 3
_FIXED = 5


class Request:
    """A command line to carry out: ``version`` of the client's code, its folder, umask, streams' encoding."""

    def __init__(  # noqa: PLR0917 - what makes a command line, in one place
        self, version: str, folder: str, umask: int, encoding: str, argv: list[str], environ: dict[str, str]
    ) -> None:
        self.version = version
        self.folder = folder
        self.umask = umask
        self.encoding = encoding
        self.argv = argv
        self.environ = environ

    def encode(self) -> bytes:
        """Return the request's bytes, without the length."""
        fields = [self.version, self.folder, str(self.umask), self.encoding, str(len(self.argv)), *self.argv]
        fields += [f"{name}={value}" for name, value in self.environ.items()]
        return "\0".join(fields).encode(errors="surrogateescape")

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """Read a request. ValueError for anything else."""
        fields = data.decode(errors="surrogateescape").split("\0")
        version, folder, umask, encoding, count = fields[:_FIXED]
        end = _FIXED + int(count)
        if not _FIXED <= end <= len(fields):
            raise ValueError("fewer arguments than announced")
        environ = dict(field.split("=", 1) for field in fields[end:])
        return cls(version, folder, int(umask), encoding, fields[_FIXED:end], environ)
