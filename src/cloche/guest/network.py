"""The guest's network: the way out, and a wire to each job's own namespace."""

from __future__ import annotations

import os
import subprocess

from cloche.guest import linux

_DEADLINE = 30.0  # seconds
_AGENT_NETNS = "/run/netns/agent"
_BRIDGE = "cloche0"
_GATEWAY = "172.30.0.1"
_PREFIX = 16
# What QEMU's user-mode network is by default (qemu(1), -netdev user): no DHCP round trip for fixed answers.
_GUEST = "10.0.2.15/24"
_ROUTER = "10.0.2.2"
RESOLVER = "10.0.2.3"
_SETTINGS = {
    # The way out is IPv4. Addresses of IPv6, but for the loopback's, would only be looked for in use and announced,
    # for seconds after an interface is made: in every copy of the template, while the first step runs.
    "ipv6/conf/default/addr_gen_mode": "1",
    "core/devconf_inherit_init_net": "1",  # else jobs' own namespaces would begin with the kernel's defaults
}
"""Below /proc/sys/net, in this order (the kernel's Documentation/networking/ip-sysctl.rst)."""


class JobNetwork:
    """A bridge with a masqueraded way out; each job's namespace hangs on it by a veth pair."""

    def __init__(self, *, outward: bool) -> None:
        """``outward`` is false where the VM has no network card: jobs still get their loopback."""
        self._outward = outward

    def prepare(self) -> None:
        """Set the guest's own network up; once, before the first job."""
        linux.loopback_up()
        for name, value in _SETTINGS.items():
            with open(f"/proc/sys/net/{name}", "w", encoding="ascii") as file:
                file.write(value)
        if not self._outward:
            return
        # A name for the agent's namespace, so that a job's init can put the far end of its wire there.
        os.makedirs(os.path.dirname(_AGENT_NETNS), exist_ok=True)
        with open(_AGENT_NETNS, "wb"):
            pass
        linux.bind("/proc/self/ns/net", _AGENT_NETNS)
        run_ip(
            f"addr add {_GUEST} dev eth0",
            "link set eth0 up",
            f"route add default via {_ROUTER}",
            f"link add {_BRIDGE} type bridge mcast_snooping 0",
            f"addr add {_GATEWAY}/{_PREFIX} dev {_BRIDGE}",
            f"link set {_BRIDGE} up",
        )
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as file:
            file.write("1")
        chain = "type nat hook postrouting priority 100; oifname eth0 masquerade;"
        _run(["nft", "-f", "-"], f"table ip cloche {{\n chain out {{ {chain} }}\n}}\n")

    def wire_inside(self, slot: int) -> None:
        """Called by the job's init in its new namespace, while the agent's tools are still in sight."""
        linux.loopback_up()
        if not self._outward:
            return
        address = f"172.30.{slot // 250}.{slot % 250 + 2}"
        run_ip(
            f"link add eth0 type veth peer name job{slot} netns agent",
            f"addr add {address}/{_PREFIX} dev eth0",
            "link set eth0 up",
            f"route add default via {_GATEWAY}",
        )
        run_ip(f"link set job{slot} master {_BRIDGE} up", namespace="agent")


def run_ip(*commands: str, namespace: str | None = None) -> None:
    """A batch of ip(8) commands; they stop at the first that fails. RuntimeError with what it said."""
    batch = "".join(f"{command}\n" for command in commands)
    _run(["ip", *(["-n", namespace] if namespace else []), "-batch", "-"], batch)


def _run(argv: list[str], script: str) -> None:
    result = subprocess.run(
        argv, input=script, text=True, capture_output=True, check=False, timeout=_DEADLINE
    )
    if result.returncode != 0:
        raise RuntimeError(f"{argv[0]}: {result.stderr.strip() or result.stdout.strip()}")
