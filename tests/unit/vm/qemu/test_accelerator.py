from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from cloche.errors import ProviderError
from cloche.vm.qemu.accelerator import AcceleratorProbe, qemu_binary

if TYPE_CHECKING:
    from pathlib import Path


class Boots:
    """A probe boot with a known answer that counts how often it was asked."""

    def __init__(self, *, answer: bool) -> None:
        self.asked = 0
        self._answer = answer

    async def __call__(self) -> bool:
        self.asked += 1
        return self._answer


@pytest.fixture
def binary(tmp_path: Path) -> str:
    (tmp_path / "qemu").write_bytes(b"")
    return str(tmp_path / "qemu")


@pytest.fixture
def kvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a ``/dev/kvm`` that may be opened, whatever this one has."""
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path == "/dev/kvm" or real(path, mode))


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize(("answer", "accelerator"), [(True, "kvm"), (False, "tcg")])
async def test_a_guest_is_booted_once_and_the_answer_kept(
    tmp_path: Path, binary: str, *, answer: bool, accelerator: str
) -> None:
    boots = Boots(answer=answer)
    memory = tmp_path / "data" / "kvm.json"
    assert AcceleratorProbe(memory).known(binary) is None
    for _ in range(2):
        assert await AcceleratorProbe(memory).choose(binary, boots) == accelerator
    assert boots.asked == 1
    assert AcceleratorProbe(memory).known(binary) == accelerator
    assert [path.name for path in memory.parent.iterdir()] == ["kvm.json"]


@pytest.mark.usefixtures("kvm")
async def test_another_qemu_is_another_question(tmp_path: Path, binary: str) -> None:
    probe = AcceleratorProbe(tmp_path / "kvm.json")
    await probe.choose(binary, Boots(answer=False))
    (tmp_path / "qemu").write_bytes(b"a newer one")
    boots = Boots(answer=True)
    assert await probe.choose(binary, boots) == "kvm"
    assert boots.asked == 1


@pytest.mark.usefixtures("kvm")
@pytest.mark.parametrize(
    "content", ["", "nonsense", "[]", json.dumps({"key": "other", "accelerator": "kvm"})]
)
async def test_a_memory_that_makes_no_sense_is_none(tmp_path: Path, binary: str, content: str) -> None:
    (tmp_path / "kvm.json").write_text(content)
    boots = Boots(answer=False)
    assert await AcceleratorProbe(tmp_path / "kvm.json").choose(binary, boots) == "tcg"
    assert boots.asked == 1


async def test_without_a_device_nothing_is_booted(
    tmp_path: Path, binary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    boots = Boots(answer=True)
    assert await AcceleratorProbe(tmp_path / "kvm.json").choose(binary, boots) == "tcg"
    assert boots.asked == 0


def test_a_missing_qemu_is_named_with_what_to_type() -> None:
    with pytest.raises(ProviderError, match="qemu-system-none is not installed") as caught:
        qemu_binary("qemu-system-none")
    assert caught.value.hint is not None
    assert "apt-get install" in caught.value.hint
