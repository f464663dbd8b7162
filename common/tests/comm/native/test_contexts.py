"""What handlers and interceptors see and do: the same on both transports."""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc.aio import EOF  # type: ignore[attr-defined]  # missing in the stubs

from selvedge_common import comm

Serve = Callable[..., Awaitable[comm.GRPCServer]]
Connect = Callable[..., Any]  # the stubs know no raw messages
Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
PATH = "/test.Context/Method"
STREAM = "/test.Context/Stream"
GZIP, DEFLATE = grpc.Compression.Gzip, grpc.Compression.Deflate


@pytest.fixture(params=comm.TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Any:
    """Both, unlike in the rest of this folder."""
    return request.param


@pytest.fixture
async def one(serve: Serve, connect: Connect) -> Callable[..., Awaitable[Callable[..., Any]]]:
    """Serve one method, and give what calls it."""

    async def start(behaviour: Any, kind: str = "unary_unary", **channel: Any) -> Any:
        method = getattr(grpc, f"{kind}_rpc_method_handler")(behaviour)
        server = await serve(
            lambda s: s.add_registered_method_handlers("test.Context", {"Method": method})
        )
        return getattr(connect(server, **channel), kind)(PATH)

    return start


async def _refusal(call: Awaitable[Any]) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


def _pairs(error: grpc.aio.AioRpcError) -> list[tuple[str, Any]]:
    return list(cast("Any", error.trailing_metadata()))


# Metadata.

SENT = (
    ("text", "a value"),
    ("twice", "1"),
    ("binary-bin", bytes(range(256))),
    ("twice", "2"),
    ("empty", ""),
    ("empty-bin", b""),
    ("comma", "a,b"),
)


async def test_metadata_of_a_call_is_seen_as_it_was_sent(one: Any) -> None:
    seen: Any = None

    async def keep(_: bytes, context: Any) -> bytes:
        nonlocal seen
        seen = context.invocation_metadata()
        return b""

    await (await one(keep))(b"", metadata=SENT, timeout=30)
    own = [entry for entry in seen if entry[0] != "user-agent"]
    assert sorted(own) == sorted(SENT)
    assert [value for key, value in own if key == "twice"] == ["1", "2"]
    assert {entry.key: entry.value for entry in seen}["text"] == "a value"
    assert {key for key, _ in seen} == {key for key, _ in SENT} | {"user-agent"}


async def test_metadata_of_a_response_is_read_as_it_was_set(one: Any) -> None:
    async def answer(_: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(SENT)
        context.set_trailing_metadata((*SENT, ("last", "one")))
        assert tuple(context.trailing_metadata()) == (*SENT, ("last", "one"))
        return b""

    call = (await one(answer))(b"")
    assert sorted(await call.initial_metadata()) == sorted(SENT)
    assert sorted(await call.trailing_metadata()) == sorted((*SENT, ("last", "one")))


async def test_metadata_of_a_response_may_be_larger_than_a_frame(one: Any) -> None:
    large = tuple((f"large-{number}-bin", bytes([number]) * 10_000) for number in range(5))

    async def answer(_: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(large)
        context.set_trailing_metadata(large)
        return b"between"

    options = [("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)]
    call = (await one(answer, options=options))(b"")
    assert await call == b"between"
    assert sorted(await call.initial_metadata()) == sorted(large)
    assert sorted(await call.trailing_metadata()) == sorted(large)


async def test_initial_metadata_is_sent_once(one: Any) -> None:
    async def twice(_: bytes, context: Any) -> bytes:
        await context.send_initial_metadata(())
        with pytest.raises(Exception, match="already sent"):
            await context.send_initial_metadata(())
        return b"once"

    assert await (await one(twice))(b"") == b"once"


# Statuses.


async def test_code_and_details_that_a_handler_sets_are_the_status(one: Any) -> None:
    async def refuse(_: bytes, context: Any) -> bytes:
        assert context.code() in (None, 0)
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("Not here: 100 % ü\n€ \U0001f600.")
        assert context.code() is grpc.StatusCode.NOT_FOUND
        return b"not sent"

    error = await _refusal((await one(refuse))(b""))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "Not here: 100 % ü\n€ \U0001f600."


@pytest.mark.parametrize("number", [5, 99])
async def test_code_that_is_a_number_is_taken_as_its_status(one: Any, number: int) -> None:
    async def refuse(_: bytes, context: Any) -> bytes:
        context.set_code(number)
        return b""

    error = await _refusal((await one(refuse))(b""))
    expected = {5: grpc.StatusCode.NOT_FOUND, 99: grpc.StatusCode.UNKNOWN}
    assert error.code() is expected[number]


async def test_abort_ends_the_call_for_good(one: Any) -> None:
    async def abort(_: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("before", "abort"),))
        with pytest.raises(grpc.aio.AbortError):
            await context.abort(grpc.StatusCode.ABORTED, "Enough.", (("with", "abort"),))
        return b"not sent"

    error = await _refusal((await one(abort))(b""))
    assert error.code() is grpc.StatusCode.ABORTED
    assert error.details() == "Enough."
    assert ("with", "abort") in _pairs(error)


class _RichStatus(grpc.Status):
    code = grpc.StatusCode.FAILED_PRECONDITION
    details = "With details."
    trailing_metadata = (("grpc-status-details-bin", b"\x08\x09\x12\x0dWith details."),)


async def test_rich_status_travels_with_its_details(one: Any) -> None:
    async def abort(_: bytes, context: Any) -> bytes:
        await context.abort_with_status(_RichStatus())
        return b""

    error = await _refusal((await one(abort))(b""))
    assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert error.details() == "With details."
    assert _RichStatus.trailing_metadata[0] in _pairs(error)


async def test_responses_that_were_written_come_before_the_status(one: Any) -> None:
    async def some(_: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"1"
        yield b"2"
        await context.abort(grpc.StatusCode.DATA_LOSS, "No more.")

    call = (await one(some, "unary_stream"))(b"")
    assert [await call.read(), await call.read()] == [b"1", b"2"]
    error = await _refusal(call.read())
    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "No more.")


# Time.


async def test_time_remaining_counts_down_to_the_deadline(one: Any) -> None:
    async def tell(_: bytes, context: Any) -> bytes:
        return repr(context.time_remaining()).encode()

    method = await one(tell)
    assert await method(b"") == b"None"
    assert 28 < float(await method(b"", timeout=30)) < 31
    assert 3500 < float(await method(b"", timeout=3600)) < 3660


async def test_deadline_ends_the_handler(one: Any, eventually: Eventually) -> None:
    contexts: list[Any] = []

    async def wait(_: bytes, context: Any) -> bytes:
        contexts.append(context)
        try:
            await asyncio.Event().wait()
        finally:
            contexts.append("ended")
        return b""

    error = await _refusal((await one(wait))(b"", timeout=0.1))
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await eventually(lambda: contexts[1:] == ["ended"])


# Cancellation and callbacks.


async def test_cancelling_ends_the_handler_and_calls_back(one: Any, eventually: Eventually) -> None:
    began = asyncio.Event()
    called: list[tuple[int, bool]] = []

    async def wait(_: bytes, context: Any) -> bytes:
        context.add_done_callback(lambda done: called.append((1, done is context)))
        context.add_done_callback(lambda done: called.append((2, done is context)))
        assert not context.done()
        assert not context.cancelled()
        began.set()
        await asyncio.Event().wait()
        return b""

    call = (await one(wait))(b"")
    async with asyncio.timeout(10):
        await began.wait()
    assert call.cancel()
    await eventually(lambda: len(called) == 2)
    assert sorted(called) == [(1, True), (2, True)]


async def test_call_that_ends_calls_back_once(one: Any, eventually: Eventually) -> None:
    called: list[object] = []

    async def answer(_: bytes, context: Any) -> bytes:
        context.add_done_callback(called.append)
        return b""

    await (await one(answer))(b"")
    await eventually(lambda: len(called) == 1)


async def test_reading_after_the_last_message_gives_the_end_again(one: Any) -> None:
    async def read(_: AsyncIterator[bytes], context: Any) -> None:
        received = [await context.read() for _ in range(4)]
        await context.write(b"%d" % received.count(EOF))

    call = (await one(read, "stream_stream"))(iter([b"1", b"2"]))
    assert await call.read() == b"2"


# Compression.


@pytest.mark.parametrize("compression", [GZIP, DEFLATE, grpc.Compression.NoCompression])
async def test_requests_are_read_compressed_or_not(one: Any, compression: grpc.Compression) -> None:
    async def echo(request: bytes, _: Any) -> bytes:
        return request

    method = await one(echo)
    for message in (b"", b"x" * 10_000):
        assert await method(message, compression=compression) == message


@pytest.mark.parametrize("compression", [GZIP, DEFLATE, grpc.Compression.NoCompression])
async def test_responses_are_compressed_as_their_handler_says(
    one: Any, compression: grpc.Compression
) -> None:
    async def some(_: bytes, context: Any) -> AsyncIterator[bytes]:
        context.set_compression(compression)
        yield b"x" * 10_000
        context.disable_next_message_compression()
        yield b"y" * 10_000
        yield b""

    call = (await one(some, "unary_stream"))(b"")
    assert [message async for message in call] == [b"x" * 10_000, b"y" * 10_000, b""]
    assert await call.code() is grpc.StatusCode.OK


# Interceptors.


class _Recording(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not at run time
    def __init__(self, name: str, seen: list[tuple[str, str]]) -> None:
        self._name = name
        self._seen = seen

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        self._seen.append((self._name, details.method))
        assert ("who", "me") in [tuple(entry) for entry in details.invocation_metadata]
        handler = await continuation(details)
        self._seen.append((f"{self._name} back", details.method))
        return handler


class _Refusing(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not at run time
    """Refuses every call by a handler of its own, of the kind that the method has."""

    async def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = await continuation(details)

        async def refuse(_: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "Not you.")

        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(refuse)
        return grpc.unary_unary_rpc_method_handler(refuse)


@pytest.fixture
async def intercepted(
    transport: Any, connect: Connect
) -> AsyncIterator[Callable[..., Awaitable[Any]]]:
    """Serve an echo and a message stream behind interceptors, and give a channel."""
    servers: list[comm.GRPCServer] = []

    async def start(*interceptors: Any) -> Any:
        server = comm.GRPCServer(
            "127.0.0.1:0", comm.ServerConfig(transport=transport), interceptors
        )
        servers.append(server)

        async def echo(request: bytes, _: Any) -> bytes:
            return request

        async def stream(served: comm.MessageStream) -> None:
            async for message in served:
                served.send(message)

        method = grpc.unary_unary_rpc_method_handler(echo)
        server.add_registered_method_handlers("test.Context", {"Method": method})
        server.add_message_stream(STREAM, stream)
        await server.start()
        return connect(server)

    yield start
    for server in servers:
        await server.stop(0)


async def test_interceptors_are_asked_in_their_order_also_for_message_streams(
    intercepted: Any,
) -> None:
    seen: list[tuple[str, str]] = []
    channel = await intercepted(_Recording("first", seen), _Recording("second", seen))
    metadata = (("who", "me"),)
    order = ("first", "second", "second back", "first back")
    assert await channel.unary_unary(PATH)(b"1", metadata=metadata) == b"1"
    assert seen == [(name, PATH) for name in order]
    seen.clear()
    call = channel.stream_stream(STREAM)(iter([b"2"]), metadata=metadata)
    assert [message async for message in call] == [b"2"]
    assert seen == [(name, STREAM) for name in order]


async def test_interceptor_may_refuse_calls_and_message_streams(intercepted: Any) -> None:
    channel = await intercepted(_Refusing())
    error = await _refusal(channel.unary_unary(PATH)(b"1"))
    assert (error.code(), error.details()) == (grpc.StatusCode.PERMISSION_DENIED, "Not you.")
    call = channel.stream_stream(STREAM)()
    assert await call.code() is grpc.StatusCode.PERMISSION_DENIED
    assert await call.details() == "Not you."


# What TLS knows.


def _name(*parts: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(*part) for part in parts])


SUBJECTS: dict[str, tuple[x509.Name, list[x509.GeneralName]]] = {
    "simple": (_name((NameOID.COMMON_NAME, "user1")), []),
    "everything": (
        _name(
            (NameOID.COUNTRY_NAME, "DE"),
            (NameOID.ORGANIZATION_NAME, 'Acme, "x" + = ; <>#\\'),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "client"),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, "department1"),
            (NameOID.SERIAL_NUMBER, "7"),
            (NameOID.EMAIL_ADDRESS, "a@b.example"),
            (NameOID.COMMON_NAME, "user ü"),
        ),
        [
            x509.DNSName("b.example"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.UniformResourceIdentifier("spiffe://trust/workload"),
            x509.RFC822Name("x@y.example"),
            x509.DNSName("a.example"),
            x509.IPAddress(ipaddress.ip_address("2001:db8::10")),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        ],
    ),
    "two common names": (
        _name((NameOID.COMMON_NAME, "one"), (NameOID.COMMON_NAME, "two")),
        [],
    ),
    "no common name": (_name((NameOID.ORGANIZATION_NAME, "x")), [x509.DNSName("a.example")]),
    "two in one": (
        x509.Name(
            [
                x509.RelativeDistinguishedName(
                    [
                        x509.NameAttribute(NameOID.COMMON_NAME, "m"),
                        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "u"),
                    ]
                )
            ]
        ),
        [],
    ),
}


def _config(secure: comm.SecureServerConfig, transport: Any) -> comm.ServerConfig:
    return comm.ServerConfig(secure, transport=transport)


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_client_certificate_is_described_alike_by_both_transports(
    subject: str, connect: Connect, make_tls_authority: Callable[[str], Any]
) -> None:
    authority = make_tls_authority("root")
    name, alternatives = SUBJECTS[subject]
    key = ec.generate_private_key(ec.SECP256R1())
    builder = authority._builder(name, key.public_key())
    if alternatives:
        names = x509.SubjectAlternativeName(alternatives)
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(authority._key, hashes.SHA256())
    secure = authority.mutual_tls()
    told: list[Any] = []

    async def tell(_: bytes, context: Any) -> bytes:
        known = {key: list(values) for key, values in context.auth_context().items()}
        told.append((known, context.peer_identity_key(), list(context.peer_identities())))
        return b""

    method = grpc.unary_unary_rpc_method_handler(tell)
    for transport in comm.TRANSPORTS:
        server = comm.GRPCServer("127.0.0.1:0", _config(secure, transport))
        server.add_registered_method_handlers("test.Context", {"Method": method})
        await server.start()
        channel = connect(
            server,
            root_cas=authority.root,
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            key=key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )
        await channel.unary_unary(PATH)(b"")
        await server.stop(0)
    for known, _, _ in told:
        # grpcio has this where the client sends more than its own; Python tells the group later.
        known.pop("x509_pem_cert_chain", None)
        known.pop("ssl_negotiated_key_exchange_group", None)
    assert told[0] == told[1]
    assert told[0][0]["x509_pem_cert"] == [certificate.public_bytes(serialization.Encoding.PEM)]
