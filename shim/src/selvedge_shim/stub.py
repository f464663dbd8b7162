"""The transaction as its chaincode sees it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property

from google.protobuf.message import DecodeError

from selvedge_protos.common import common_pb2
from selvedge_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_pb2
from selvedge_protos.peer import chaincode_shim_pb2 as wire
from selvedge_shim import composite_key
from selvedge_shim.errors import ProtocolError, ShimError
from selvedge_shim.state_iterator import StateIterator
from selvedge_shim.transaction import Transaction

Type = wire.ChaincodeMessage.Type
# Where an open range starts, so that it leaves out the composite keys, which begin with U+0000.
FIRST_SIMPLE_KEY = "\x01"


class Stub:
    """Access to the arguments, the caller and the ledger, for one transaction.

    Reads show the state before the transaction: its own writes are not seen until it is committed.
    Every read or write may raise `PeerError`: the peer refused it. When the stream to the peer
    ends, its running transactions are cancelled.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._iterators: list[StateIterator] = []
        self._event: chaincode_event_pb2.ChaincodeEvent | None = None
        try:
            self.args: list[bytes] = list(
                chaincode_pb2.ChaincodeInput.FromString(transaction.message.payload).args
            )
        except DecodeError:
            raise ProtocolError("the transaction's payload is not a ChaincodeInput") from None

    @property
    def txid(self) -> str:
        """The transaction's id, hexadecimal."""
        return self._transaction.message.txid

    @property
    def channel_id(self) -> str:
        """The channel that the transaction runs on."""
        return self._transaction.message.channel_id

    @property
    def function_and_parameters(self) -> tuple[str, list[str]]:
        """The first argument, and the others, as text. Without arguments: an empty name.

        Raises:
            ShimError: an argument is not UTF-8; read `args` for binary ones.
        """
        try:
            function, *parameters = [argument.decode() for argument in self.args] or [""]
        except UnicodeDecodeError:
            raise ShimError("an argument is not UTF-8 text: read it from stub.args") from None
        return function, parameters

    @property
    def signed_proposal(self) -> proposal_pb2.SignedProposal:
        """The client's signed proposal, as it came."""
        return self._transaction.message.proposal

    @cached_property
    def _proposal(self) -> proposal_pb2.Proposal:
        return proposal_pb2.Proposal.FromString(self.signed_proposal.proposal_bytes)

    @cached_property
    def _header(self) -> common_pb2.Header:
        return common_pb2.Header.FromString(self._proposal.header)

    @property
    def creator(self) -> bytes:
        """The client: a serialised `msp.SerializedIdentity`."""
        return common_pb2.SignatureHeader.FromString(self._header.signature_header).creator

    @property
    def timestamp(self) -> datetime:
        """When the client says it made the proposal; the same on every peer."""
        header = common_pb2.ChannelHeader.FromString(self._header.channel_header)
        return header.timestamp.ToDatetime(tzinfo=UTC)

    def get_transient(self) -> dict[str, bytes]:
        """What the client sent for this transaction's eyes only; it never reaches the ledger."""
        payload = proposal_pb2.ChaincodeProposalPayload.FromString(self._proposal.payload)
        return dict(payload.TransientMap)

    async def get_state(self, key: str) -> bytes:
        """Read one key; empty when it has no value.

        Raises:
            InvalidKey: the key is empty or not UTF-8.
        """
        composite_key.check_key(key)
        return await self._request(Type.GET_STATE, wire.GetState(key=key))

    async def put_state(self, key: str, value: bytes) -> None:
        """Write one key, once the transaction is committed.

        Raises:
            InvalidKey: the key is empty or not UTF-8.
        """
        composite_key.check_key(key)
        await self._request(Type.PUT_STATE, wire.PutState(key=key, value=value))

    async def delete_state(self, key: str) -> None:
        """Delete one key, once the transaction is committed.

        Raises:
            InvalidKey: the key is empty or not UTF-8.
        """
        composite_key.check_key(key)
        await self._request(Type.DEL_STATE, wire.DelState(key=key))

    def get_state_by_range(self, start: str = "", end: str = "") -> StateIterator:
        """Iterate simple keys in order, from `start` (included) to `end` (not included).

        An empty bound is open. Pages are fetched as the iteration goes on.

        Raises:
            InvalidKey: a bound reaches into the composite keys.
        """
        composite_key.check_range_bound(start)
        composite_key.check_range_bound(end)
        return self._iterate(start or FIRST_SIMPLE_KEY, end)

    def get_state_by_partial_composite_key(
        self, object_type: str, attributes: Sequence[str] = ()
    ) -> StateIterator:
        """Iterate the composite keys that begin with this type and these attributes.

        Raises:
            InvalidKey: a part holds U+0000 or U+10FFFF.
        """
        prefix = self.create_composite_key(object_type, attributes)
        return self._iterate(prefix, prefix + composite_key.LAST_RUNE)

    create_composite_key = staticmethod(composite_key.create_composite_key)
    split_composite_key = staticmethod(composite_key.split_composite_key)

    def set_event(self, name: str, payload: bytes = b"") -> None:
        """Attach the one event of this transaction, told once it is committed; the last one counts.

        Raises:
            ShimError: the name is empty.
        """
        if not name:
            raise ShimError("an event needs a name")
        self._event = chaincode_event_pb2.ChaincodeEvent(event_name=name, payload=payload)

    @property
    def event(self) -> chaincode_event_pb2.ChaincodeEvent | None:
        """What `set_event` left."""
        return self._event

    async def close(self) -> None:
        """Give back the iterators that the chaincode left half read. The shim calls this."""
        for iterator in self._iterators:
            await iterator.aclose()

    def _iterate(self, start: str, end: str) -> StateIterator:
        request = wire.GetStateByRange(startKey=start, endKey=end)
        iterator = StateIterator(self._transaction, request)
        self._iterators.append(iterator)
        return iterator

    async def _request(
        self, kind: Type.ValueType, payload: wire.GetState | wire.PutState | wire.DelState
    ) -> bytes:
        return await self._transaction.request(kind, payload.SerializeToString())
