"""Which machines Cloche knows."""

from __future__ import annotations

import pytest

from cloche.errors import ImageError
from cloche.image.arch import X86_64, architecture_named, host_architecture


def test_this_machine_is_known_by_its_kernel_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert host_architecture() is X86_64


def test_an_unknown_machine_is_told_what_is_known() -> None:
    with pytest.raises(ImageError, match=r"no images for riscv64 machines yet \(only for x86_64\)"):
        architecture_named("riscv64")
