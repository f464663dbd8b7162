"""Dialling the peer, again and again, for as long as the chaincode lives."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress

import grpc
import grpc.aio

from selvedge_protos.peer import chaincode_shim_pb2_grpc
from selvedge_shim.chaincode import Chaincode
from selvedge_shim.environment import Environment, read_environment
from selvedge_shim.errors import ConfigurationError, ProtocolError
from selvedge_shim.stream import ChaincodeStream

logger = logging.getLogger("selvedge_shim")

# Seconds between attempts to reach the peer: quick at first, since both are often started together,
# and not long for a time in which a peer that was restarted is back.
FIRST_DELAY, LONGEST_EARLY_DELAY, LONGEST_DELAY = 0.05, 0.5, 2.0
# Seconds without a peer that count as early.
EARLY = 60.0
# Seconds that running transactions get to finish after SIGTERM.
DRAIN_TIMEOUT = 10.0
MAX_MESSAGE_BYTES = 100 * 1024 * 1024
CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Pings as Fabric's Go shim sends them, so that a dead peer is noticed
    # and no proxy cuts an idle stream.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Attempts are paced here. A shared subchannel would add the back-off of the attempts before.
    ("grpc.use_local_subchannel_pool", 1),
]


def start(chaincode: Chaincode) -> None:
    """Run a chaincode until SIGTERM or SIGINT, as the environment says; the `main` of a chaincode.

    Ends the process with status 2 and a sentence when the environment is not usable.
    """
    try:
        environment = read_environment(os.environ)
    except ConfigurationError as failure:
        sys.exit(_complain(failure))
    logging.basicConfig(
        level=environment.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        with asyncio.Runner(loop_factory=_event_loop()) as runner:
            runner.run(_until_signalled(chaincode, environment))
    except ConfigurationError as failure:
        sys.exit(_complain(failure))


async def serve(chaincode: Chaincode, environment: Environment, stop: asyncio.Event) -> None:
    """Keep a chaincode registered with its peer until `stop` is set, then drain.

    It waits for a peer that is not up yet, and dials again whenever the stream ends.

    Raises:
        ConfigurationError: the TLS material cannot be read, or a handler is not a coroutine.
    """
    _check_handlers(chaincode)
    clock = asyncio.get_running_loop().time
    delay, away_since = FIRST_DELAY, clock()
    while not stop.is_set():
        async with _dial(environment) as channel:
            peer = chaincode_shim_pb2_grpc.ChaincodeSupportStub(channel)
            stream = ChaincodeStream(chaincode, environment.chaincode_id, peer.Register)
            ending = await _converse(stream, environment, stop)
        if stream.registered.is_set():
            delay, away_since = FIRST_DELAY, clock()
        if ending and not stop.is_set():
            # A peer that is not up yet is no news: told once, and then at the longest delay only.
            level = logging.WARNING if delay in (FIRST_DELAY, LONGEST_DELAY) else logging.DEBUG
            logger.log(level, "%s; trying again in %.2f s", ending, delay)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), delay)
            early = clock() - away_since < EARLY
            delay = min(delay * 2, LONGEST_EARLY_DELAY if early else LONGEST_DELAY)


async def _converse(stream: ChaincodeStream, environment: Environment, stop: asyncio.Event) -> str:
    """Run one stream to its end and say in a sentence why it ended."""
    reader = asyncio.create_task(stream.run())
    stopping = asyncio.create_task(stop.wait())
    announcing = asyncio.create_task(_announce(stream, environment))
    try:
        await asyncio.wait({reader, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not reader.done():
            logger.info("stopping: running transactions have %.0f s to finish", DRAIN_TIMEOUT)
            with suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_TIMEOUT):
                    await stream.drain()
                    await asyncio.wait({reader})
    finally:
        for task in (reader, stopping, announcing):
            task.cancel()
        outcome = (await asyncio.gather(reader, stopping, announcing, return_exceptions=True))[0]
    return _explain(outcome, environment.peer_address, registered=stream.registered.is_set())


def _explain(outcome: BaseException | None, address: str, *, registered: bool) -> str:
    match outcome:
        case grpc.aio.AioRpcError():
            reason = f"{outcome.code().name}: {outcome.details()}"
            if registered:
                return f"the stream to the peer at {address} broke ({reason})"
            if outcome.code() == grpc.StatusCode.UNAVAILABLE:
                return f"the peer at {address} cannot be reached ({reason})"
            return f"the peer at {address} refused the chaincode ({reason})"
        case ProtocolError():
            return f"the conversation with the peer at {address} failed: {outcome}"
        case Exception():
            raise outcome
        case _:
            return f"the peer at {address} ended the stream"


async def _announce(stream: ChaincodeStream, environment: Environment) -> None:
    await stream.registered.wait()
    logger.info(
        "registered as %s with the peer at %s", environment.chaincode_id, environment.peer_address
    )


def _dial(environment: Environment) -> grpc.aio.Channel:
    if environment.tls is None:
        logger.warning(
            "TLS is off: everything between the chaincode and its peer can be read and changed"
        )
        return grpc.aio.insecure_channel(environment.peer_address, options=CHANNEL_OPTIONS)
    root, certificate, key = environment.tls.read()
    credentials = grpc.ssl_channel_credentials(root, private_key=key, certificate_chain=certificate)
    return grpc.aio.secure_channel(environment.peer_address, credentials, options=CHANNEL_OPTIONS)


def _check_handlers(chaincode: Chaincode) -> None:
    for handler in (chaincode.init, chaincode.invoke):
        if not asyncio.iscoroutinefunction(handler):
            raise ConfigurationError(
                f"{handler.__qualname__} must be a coroutine: write `async def`"
            )


async def _until_signalled(chaincode: Chaincode, environment: Environment) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_leave, stop)
    await serve(chaincode, environment, stop)


def _stop_or_leave(stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(1)
    stop.set()


def _event_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def _complain(failure: ConfigurationError) -> int:
    sys.stderr.write(f"chaincode: {failure}\n")
    return 2
