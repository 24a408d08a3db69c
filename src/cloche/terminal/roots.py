"""A job's root that may outlive its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from types import TracebackType
    from typing import Self

    from cloche.vm.guest import ExecSpec, JobRoot, Process


class HeldRoot:
    """A JobRoot that is not closed when it is left while ``held`` says so: it is its VM's then, and ends with it."""

    def __init__(self, root: JobRoot, held: Callable[[], bool]) -> None:
        self._root = root
        self._held = held

    @property
    def name(self) -> str:
        """See JobRoot."""
        return self._root.name

    async def __aenter__(self) -> Self:
        await self._root.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._held():
            await self._root.__aexit__(kind, error, trace)

    async def exec(self, spec: ExecSpec) -> Process:
        """See JobRoot."""
        return await self._root.exec(spec)

    async def put(self, path: str, archive: AsyncIterator[bytes], *, user: str | None = None) -> None:
        """See JobRoot."""
        await self._root.put(path, archive, user=user)

    def get(self, path: str) -> AsyncIterator[bytes]:
        """See JobRoot."""
        return self._root.get(path)

    async def hash_files(self, base: str, patterns: Sequence[str]) -> str:
        """See JobRoot."""
        return await self._root.hash_files(base, patterns)
