"""The bond of one run and one VM: its states, its limit, its end."""

from cloche.session.manager import SessionManager, SessionStats
from cloche.session.model import Session, SessionContext, SessionState, SessionStateError
from cloche.session.registry import ActiveSession, SessionRegistry, Waiting

__all__ = [
    "ActiveSession",
    "Session",
    "SessionContext",
    "SessionManager",
    "SessionRegistry",
    "SessionState",
    "SessionStateError",
    "SessionStats",
    "Waiting",
]
