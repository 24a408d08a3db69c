"""The one place that knows what each processor architecture is called by the others.

Another architecture is an entry here, and hashes of its Node wheels in ``recipe.py``; nothing else changes.
"""

from __future__ import annotations

import platform

from cloche.errors import ImageError
from cloche.records import record


@record
class Architecture:
    """One architecture under all its names.

    ``name`` is the kernel's (``uname -m``), ``debian`` also what OCI calls it, ``wheels`` are the platform tags
    of Python wheels that run on the job image, best first.
    """

    name: str
    debian: str
    kernel_package: str
    qemu_binary: str
    qemu_machine: str
    console: str
    wheels: tuple[str, ...]


X86_64 = Architecture(
    name="x86_64",
    debian="amd64",
    kernel_package="linux-image-cloud-amd64",
    qemu_binary="qemu-system-x86_64",
    qemu_machine="microvm",
    console="ttyS0",
    wheels=("manylinux_2_28_x86_64", "manylinux_2_17_x86_64"),
)

_KNOWN = {architecture.name: architecture for architecture in (X86_64,)}


def host_architecture() -> Architecture:
    """Tell this machine's architecture. Raises ImageError when Cloche does not know it yet."""
    return architecture_named(platform.machine())


def architecture_named(name: str) -> Architecture:
    """Look an architecture up by the kernel's name for it. Raises ImageError when it is not known."""
    try:
        return _KNOWN[name]
    except KeyError:
        known = ", ".join(_KNOWN)
        raise ImageError(
            f"there are no images for {name} machines yet (only for {known})",
            hint="run on such a machine, or import a root filesystem made elsewhere",
        ) from None
