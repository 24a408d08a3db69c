from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.daemon.wire import Request

# What the kernel lets a process have for an argument, a folder, a variable: any bytes but NUL.
TEXT = st.binary(max_size=20).map(lambda data: data.replace(b"\0", b"").decode(errors="surrogateescape"))
NAME = TEXT.map(lambda text: text.replace("=", "") or "NAME")


@given(TEXT, TEXT, st.integers(0, 0o777), st.lists(TEXT, max_size=5), st.dictionaries(NAME, TEXT, max_size=5))
def test_a_request_arrives_as_it_was_sent(
    version: str, folder: str, umask: int, argv: list[str], environ: dict[str, str]
) -> None:
    sent = Request(version, folder, umask, "utf-8", argv, environ)
    assert vars(Request.decode(sent.encode())) == vars(sent)


@given(st.binary(max_size=200))
def test_nonsense_is_refused_and_nothing_else(data: bytes) -> None:
    try:
        Request.decode(data)
    except ValueError:
        return


@pytest.mark.parametrize("count", ["-1", "3", "x", ""])
def test_a_wrong_number_of_arguments_is_refused(count: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Request.decode(f"1\0/\x0018\0utf-8\0{count}\0run\0A=b".encode())
