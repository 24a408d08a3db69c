"""The agent as process 1 of a microVM: prepare the guest, then serve the host for the VM's life."""

from __future__ import annotations

from cloche.guest import boot
from cloche.guest.agent import Agent
from cloche.guest.link import Link


def main() -> None:
    """Never returns: when process 1 ends, the kernel ends the VM."""
    maker = boot.prepare()
    Agent(Link(boot.open_port()), maker, boot.Identity(), boot.INBOX).serve()


if __name__ == "__main__":
    main()
