"""Header blocks by themselves: what requests mean, and what responses look like."""

import base64
from typing import Any
from urllib.parse import unquote

import grpc
import pytest
from common.tests.comm.native.raw_client import request_fields, unindexed
from hpack import Decoder

from selvedge_common.comm.native import headers
from selvedge_common.comm.native.frames import StreamFault
from selvedge_common.comm.native.headers import HeaderReader, Request


def _request(*extra: tuple[str, str]) -> Request:
    return HeaderReader(16384).request(unindexed(request_fields("/a.B/C", *extra)))


def _read(block: bytes) -> list[tuple[str, str]]:
    decoder = Decoder()
    fields: Any = decoder.decode(block)
    assert not decoder.header_table.dynamic_entries
    return [tuple(field) for field in fields]


def test_plain_request_is_understood() -> None:
    request = _request(("user-agent", "test"))
    assert request.is_grpc
    assert request.path == "/a.B/C"
    assert request.metadata == (("user-agent", "test"),)
    assert request.timeout is request.content_length is None
    assert request.encoding == "identity"
    assert request.size == sum(
        len(name) + len(value) + 32
        for name, value in request_fields("/a.B/C", ("user-agent", "test"))
    )


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        ("1H", 3600),
        ("2M", 120),
        ("3S", 3),
        ("4m", 0.004),
        ("5u", 0.000005),
        ("6n", 0.000000006),
        ("99999999H", 359999996400),
        ("0S", 0),
        ("00000001S", 1),
    ],
)
def test_every_form_of_grpc_timeout_is_read(timeout: str, seconds: float) -> None:
    assert _request(("grpc-timeout", timeout)).timeout == pytest.approx(seconds)


@pytest.mark.parametrize("timeout", ["", "S", "1", "1s", "1.5S", "+1S", "1 S", "123456789S", "1SS"])
def test_other_timeouts_are_malformed(timeout: str) -> None:
    with pytest.raises(StreamFault, match="grpc-timeout"):
        _request(("grpc-timeout", timeout))


@pytest.mark.parametrize(
    ("value", "contents"),
    [
        ("", [b""]),
        ("AAEC", [b"\0\1\2"]),
        ("AAE=", [b"\0\1"]),
        ("AAE", [b"\0\1"]),
        ("AA==,AQ", [b"\0", b"\1"]),
        ("AA, AQ ,", [b"\0", b"\1", b""]),
    ],
)
def test_binary_metadata_is_read_padded_or_not_and_in_lists(
    value: str, contents: list[bytes]
) -> None:
    request = _request(("k-bin", value))
    assert request.metadata == tuple(("k-bin", content) for content in contents)


@pytest.mark.parametrize("value", ["A", "*", "AA=A", "-_", "ü"])
def test_bad_base64_is_malformed(value: str) -> None:
    with pytest.raises(StreamFault, match="not base64"):
        _request(("k-bin", value))


def test_text_metadata_keeps_every_byte() -> None:
    block = unindexed(request_fields("/a.B/C")) + b"\x10\1a\4\xff\x80 ~"
    assert HeaderReader(16384).request(block).metadata == (("a", "\xff\x80 ~"),)


def test_what_the_transport_speaks_of_with_itself_is_no_metadata() -> None:
    request = _request(
        ("grpc-encoding", "gzip"),
        ("grpc-accept-encoding", "identity, gzip,deflate,br,br"),
        ("content-length", "5"),
        ("host", "localhost"),
        ("grpc-timeout", "1S"),
        ("grpc-trace-bin", "AA"),
    )
    assert request.metadata == (("grpc-trace-bin", b"\0"),)
    assert request.encoding == "gzip"
    assert request.accepts == {"identity", "gzip", "deflate"}
    assert request.content_length == 5


@pytest.mark.parametrize("path", ["/a.B/C", "*", "/ü", "/" + "x" * 1000])
def test_any_path_is_kept(path: str) -> None:
    request = HeaderReader(16384).request(unindexed(request_fields(path)))
    assert request.path.encode("latin-1").decode() == path


@pytest.mark.parametrize("details", ["", "plain", "100 %", "ü €\n\t\U0001f600", "%41", "a" * 1000])
def test_message_of_a_status_is_percent_encoded(details: str) -> None:
    fields = dict(_read(headers.trailers(grpc.StatusCode.ABORTED, details)))
    assert fields["grpc-status"] == "10"
    message = fields.get("grpc-message", "")
    assert message.isascii()
    assert message.isprintable()
    assert unquote(message) == details


def test_response_says_what_can_be_read_and_what_is_written() -> None:
    assert dict(_read(headers.response())) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-accept-encoding": "identity,deflate,gzip",
    }
    fields = _read(headers.response("gzip", (("a", "1"), ("a", "2"), ("b-bin", b"\xff"))))
    assert fields[3:] == [("grpc-encoding", "gzip"), ("a", "1"), ("a", "2"), ("b-bin", "/w")]


def test_trailers_alone_begin_with_the_status_of_http() -> None:
    assert _read(headers.trailers(grpc.StatusCode.OK, alone=True))[0] == (":status", "200")
    assert _read(headers.trailers(grpc.StatusCode.OK)) == [("grpc-status", "0")]


def test_rich_status_is_the_one_reserved_key_that_may_be_sent() -> None:
    rich = ("grpc-status-details-bin", b"\x08\x05")
    assert _read(headers.trailers(grpc.StatusCode.NOT_FOUND, metadata=(rich,)))[-1] == (
        "grpc-status-details-bin",
        base64.b64encode(b"\x08\x05").decode().rstrip("="),
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Upper", "a"),
        ("", "a"),
        ("a b", "a"),
        (":status", "200"),
        ("grpc-status", "0"),
        ("ü", "a"),
        ("a", "ü"),
        ("a", "b\nc"),
        ("a", " b"),
        ("a", b"\xff"),
    ],
)
def test_metadata_that_cannot_be_sent_is_refused(key: str, value: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|is no ASCII|can't decode"):
        headers.response("", ((key, value),))


def test_text_is_taken_for_a_binary_key_and_bytes_for_a_text_one() -> None:
    fields = _read(headers.response("", (("a-bin", "ü"), ("b", b"text"))))
    assert fields[3:] == [
        ("a-bin", base64.b64encode("ü".encode()).decode().rstrip("=")),
        ("b", "text"),
    ]


def test_block_means_the_same_on_every_connection() -> None:
    assert headers.response("gzip") is headers.response("gzip")
