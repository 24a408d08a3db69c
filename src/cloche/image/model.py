"""An image as the rest of the house sees it: where its files are, and what its manifest says."""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from cloche.records import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Kind = Literal["system", "job"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@record
class Image:
    """One built or imported image; everything below ``path`` is read-only from the moment it is visible.

    ``manifest`` is the content of ``manifest.json`` (docs/images.md lists its keys). Which properties make
    sense follows from ``kind``: the store resolves a name for one kind only.
    """

    kind: Kind
    digest: str
    path: Path
    manifest: Mapping[str, object]

    @property
    def kernel(self) -> Path:
        """System image: the kernel that the VM boots."""
        return self.path / "vmlinuz"

    @property
    def release(self) -> str:
        """System image: the kernel's release, as ``uname -r`` says it inside the guest."""
        return str(self.manifest["release"])

    @property
    def modules(self) -> Path:
        """System image: the kernel modules an initramfs may need, with their ``modules.dep``."""
        return self.path / "modules"

    @property
    def busybox(self) -> Path:
        """System image: the static busybox that the initramfs runs."""
        return self.path / "busybox"

    @property
    def system(self) -> Path:
        """System image: the guest's own root filesystem, erofs."""
        return self.path / "system.erofs"

    @property
    def job(self) -> Path:
        """Job image: the root filesystem that jobs see, erofs."""
        return self.path / "job.erofs"

    @property
    def tree(self) -> Path:
        """Job image: the same files unpacked."""
        return self.path / "tree"

    @property
    def env(self) -> Mapping[str, str]:
        """Job image: the environment its processes start from."""
        env = self._config.get("env", {})
        return {str(name): str(value) for name, value in env.items()}

    @property
    def user(self) -> str | None:
        """Job image: who its processes run as, ``name``, ``uid`` or either with ``:group``; None if unsaid."""
        return self._config.get("user") or None

    @property
    def workdir(self) -> str | None:
        """Job image: where its processes start; None if unsaid."""
        return self._config.get("workdir") or None

    @property
    def _config(self) -> Mapping[str, Any]:
        config = self.manifest.get("config")
        return config if isinstance(config, dict) else {}

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep the files from being removed while the block runs, also by other processes.

        Held by the kernel for this process: a process that dies lets go.
        """
        with (self.path / "manifest.json").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
