from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.guest import protocol
from cloche.guest.protocol import Decoder, ProtocolError, encode

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
headers = st.builds(
    lambda kind, rest: {**rest, "t": kind}, st.text(), st.dictionaries(st.text(), json_values, max_size=4)
)
frames = st.lists(st.tuples(headers, st.binary(max_size=300)), max_size=5)


def raw_frame(head: bytes, body: bytes = b"") -> bytes:
    return struct.pack("!II", len(head), len(body)) + head + body


@given(frames, st.data())
def test_any_split_of_the_stream_gives_the_same_frames(
    sent: list[tuple[protocol.Header, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(encode(header, payload) for header, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = Decoder()
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[start:end])
    assert got == sent
    assert decoder.pending == 0


def test_a_frame_arrives_with_its_last_byte() -> None:
    frame = encode({"t": "data", "s": 1}, b"payload")
    decoder = Decoder()
    assert [found for byte in frame[:-1] for found in decoder.feed(bytes([byte]))] == []
    assert decoder.feed(frame[-1:]) == [({"t": "data", "s": 1}, b"payload")]


@given(st.binary(max_size=200))
def test_noise_is_an_error_or_waits_for_more(noise: bytes) -> None:
    decoder = Decoder()
    try:
        decoder.feed(noise)
    except ProtocolError:
        return
    assert decoder.pending <= len(noise)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (protocol.MAX_HEADER + 1, 0),
        (0, protocol.MAX_PAYLOAD + 1),
        (0xFFFFFFFF, 0xFFFFFFFF),
    ],
)
def test_a_length_over_the_limit_is_refused_before_its_bytes_come(head: int, body: int) -> None:
    with pytest.raises(ProtocolError, match="over the limit"):
        Decoder().feed(struct.pack("!II", head, body))


def test_a_decoder_may_have_narrower_limits() -> None:
    frame = encode({"t": "data"}, bytes(100))
    assert Decoder(max_header=12, max_payload=100).feed(frame)
    for narrow in (Decoder(max_header=11), Decoder(max_payload=99)):
        with pytest.raises(ProtocolError, match="over the limit"):
            narrow.feed(frame)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"{",
        b"not json",
        b"\xff\xfe\x00",
        b"null",
        b"[]",
        b'"t"',
        b"{}",
        b'{"t": 1}',
        b'{"t": null}',
        b"[" * 100_000,
        b'{"t": ' * 50_000,
        b'{"t": "data", "n": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda head: repr(head[:20]),
)
def test_a_header_that_is_no_object_with_a_type_is_refused(head: bytes) -> None:
    with pytest.raises(ProtocolError, match="header"):
        Decoder().feed(raw_frame(head))


def test_what_was_decoded_is_not_kept() -> None:
    decoder = Decoder()
    chunk = encode({"t": "data", "s": 1}, bytes(protocol.CHUNK))
    for _ in range(100):
        assert len(decoder.feed(chunk + chunk[:10])) == 1
        assert decoder.pending == 10
        assert len(decoder.feed(chunk[10:])) == 1
        assert decoder.pending == 0


@pytest.mark.parametrize(
    ("header", "payload"),
    [
        ({"t": "exec", "env": {"A": "x" * protocol.MAX_HEADER}}, b""),
        ({"t": "data"}, bytes(protocol.MAX_PAYLOAD + 1)),
    ],
)
def test_a_frame_over_the_limits_is_not_made(header: protocol.Header, payload: bytes) -> None:
    with pytest.raises(ProtocolError, match="over the limit"):
        encode(header, payload)


def test_text_that_is_no_unicode_survives() -> None:
    header: protocol.Header = {"t": "exec", "argv": ["caf\udce9"]}
    assert Decoder().feed(encode(header)) == [(header, b"")]
    assert json.dumps(header).isascii()
