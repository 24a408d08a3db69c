"""Whether KVM really runs a guest here, found out once per host boot, kernel and QEMU.

``/dev/kvm`` can exist and answer and still run nothing (nested hosts): only a guest that answers is proof.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cloche.errors import ProviderError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloche.vm.qemu.machine import Accelerator

PROBE_DEADLINE = 10.0
"""Seconds for a guest under KVM to answer; a cold boot takes under one where KVM works."""


def qemu_binary(name: str) -> str:
    """The path of QEMU. ProviderError, with what to type, where there is none."""
    found = shutil.which(name)
    if found is None:
        raise ProviderError(
            f"{name} is not installed", hint="apt-get install --no-install-recommends qemu-system-x86"
        )
    return found


class AcceleratorProbe:
    """Remembers the answer in ``memory``, a small JSON file."""

    def __init__(self, memory: Path) -> None:
        self._memory = memory

    async def choose(self, binary: str, boots: Callable[[], Awaitable[bool]]) -> Accelerator:
        """``kvm`` if ``boots`` shows that a guest runs under it, else ``tcg``."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "tcg"
        key = self._key(binary)
        known = self.known(binary)
        if known is None:
            known = "kvm" if await boots() else "tcg"
            self._memory.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._memory.with_suffix(f".{os.getpid()}")
            temporary.write_text(json.dumps({"key": key, "accelerator": known}), encoding="utf-8")
            temporary.replace(self._memory)
        return known

    def known(self, binary: str) -> Accelerator | None:
        """The remembered answer, ``None`` if there is none for this boot, kernel and QEMU."""
        try:
            answer = json.loads(self._memory.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(answer, dict) or answer.get("key") != self._key(binary):
            return None
        return "kvm" if answer.get("accelerator") == "kvm" else "tcg"

    @staticmethod
    def _key(binary: str) -> list[str]:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        status = Path(binary).stat()
        return [boot, os.uname().release, binary, str(status.st_size), str(status.st_mtime_ns)]
