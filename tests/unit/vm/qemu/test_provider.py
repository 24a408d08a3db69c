from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cloche.errors import ProviderError
from cloche.image.store import ImageStore
from cloche.vm.provider import GIB, VmSpec
from cloche.vm.qemu import provider
from cloche.vm.qemu.provider import QemuProvider

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (VmSpec(memory=1_000_000 * GIB), "of memory, this host has"),
        (VmSpec(cpus=100_000), "is to have 100000 vCPUs, this host has"),
    ],
)
async def test_what_this_host_cannot_give_is_refused_at_once(
    spec: VmSpec, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider, "qemu_binary", lambda name: name)  # none is started
    qemu = QemuProvider(ImageStore(tmp_path), tmp_path, tmp_path / "vms")
    with pytest.raises(ProviderError, match=said) as raised:
        await qemu.allocate(spec)
    assert raised.value.hint
    assert not (tmp_path / "vms").exists()
