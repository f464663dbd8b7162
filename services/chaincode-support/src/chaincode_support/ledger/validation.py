"""The checks of a transaction that need no ledger: form, signatures, names.

Follows release 2.5: core/common/validation/msgvalidation.go, core/committer/txvalidator/v20 and its
plugindispatcher. What needs the ledger (duplicates, whether those who endorsed suffice, conflicts)
is found when the block is committed, so the checks of a block do not depend on the blocks before.

The clock is not looked at either, or a block would come out differently when it is committed again
later. As in Fabric (msp/mspimplvalidate.go, getValidityOptsForCert) a certificate counts, for ever,
when it and those that it hangs on were valid as it began; who may act at a certain time is for the
endorser and the ordering to ask.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from google.protobuf.message import Message

from chaincode_support.ledger.endorsement_policies import EndorsementPolicies
from chaincode_support.ledger.endorsements import Endorsements
from chaincode_support.ledger.rejection import log_rejection
from chaincode_support.ledger.transaction import UNKNOWN_TYPE, CheckedTransaction
from selvedge_common.msp import MSP, Identity, IdentityError
from selvedge_common.msp.identity import parse_serialized
from selvedge_common.msp.policies import SignedData
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.errors import (
    MalformedBlock,
    MalformedMessage,
    MalformedTransaction,
    ValidationCode,
)
from selvedge_common.protoutil.transactions import (
    EndorsedAction,
    OpenedTransaction,
    open_transaction,
)
from selvedge_common.protoutil.wire import parse
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import chaincode_event_pb2, transaction_pb2

_M = TypeVar("_M", bound=Message)
_Part = tuple[rwset_pb2.NsReadWriteSet, kv_rwset_pb2.KVRWSet]

# Each costs a verification. Not a setting: all who validate a block must come to the same codes.
MAX_ENDORSEMENTS = 256

# Codes that Fabric gives before it has looked at the creator's signature.
_BEFORE_SIGNATURE = frozenset(
    {
        transaction_pb2.INVALID_OTHER_REASON,
        transaction_pb2.BAD_PAYLOAD,
        transaction_pb2.BAD_COMMON_HEADER,
    }
)

# How long after its beginning Fabric looks whether a certificate was valid.
_BEGUN = timedelta(seconds=1)


class Validator:
    """Checks a block's transactions against the channel's configuration, on a pool of threads."""

    def __init__(
        self, channel: str, msps: Mapping[str, MSP], policies: EndorsementPolicies, workers: int
    ) -> None:
        """`msps`: the channel's organisations by MSP id; `policies`: by which the commit judges
        endorsements; `workers`: threads to verify with."""
        self._channel = channel
        self._msps = msps
        self._policies = policies
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"validate-{channel}")

    async def open(self, number: int, read: Callable[[int], bytes]) -> tuple[common_pb2.Block, int]:
        """Read and parse block `number`; gives how many bytes it has, too.

        Raises what `read` raises, and MalformedBlock, also when its data is not its header's. On a
        thread: a large block, or a slow disk, would hold up everything else on the loop.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, _open_block, number, read
        )

    async def check(self, block: common_pb2.Block) -> list[CheckedTransaction]:
        """One result for each of the block's envelopes, in their order; nothing is raised for them.

        The outcome depends on the block and the configuration alone, never on the clock.
        """
        parts = await asyncio.gather(*map(asyncio.wrap_future, self._begin_to_check(block)))
        return [checked for part in parts for checked in part]

    def check_and_wait(self, block: common_pb2.Block) -> list[CheckedTransaction]:
        """The same for a caller without an event loop."""
        return [checked for part in self._begin_to_check(block) for checked in part.result()]

    def close(self) -> None:
        """End the threads once they have finished."""
        self._pool.shutdown()

    def _begin_to_check(self, block: common_pb2.Block) -> list[Future[list[CheckedTransaction]]]:
        envelopes = block.data.data
        # One task for each thread and not for each transaction: the hand-over costs as much as a
        # signature.
        size = -(-len(envelopes) // self._workers) or 1
        return [
            self._pool.submit(self._check_part, block.header.number, start, part)
            for start in range(0, len(envelopes), size)
            if (part := envelopes[start : start + size])
        ]

    def _check_part(
        self, number: int, start: int, envelopes: Sequence[bytes]
    ) -> list[CheckedTransaction]:
        return [
            self._check_transaction(number, position, envelope)
            for position, envelope in enumerate(envelopes, start)
        ]

    def _check_transaction(self, number: int, position: int, envelope: bytes) -> CheckedTransaction:
        txid = ""
        kind = UNKNOWN_TYPE
        try:
            transaction = self._open(envelope)
            # From here on the creator's signature vouches for the transaction's id.
            txid, kind = transaction.txid, transaction.channel_header.type
            if transaction.channel != self._channel:
                raise MalformedTransaction(
                    transaction_pb2.TARGET_CHAIN_NOT_FOUND,
                    f"The transaction is for the channel {transaction.channel!r}.",
                )
            action = transaction.open_action()
            if action is None:
                raise MalformedTransaction(
                    transaction_pb2.INVALID_CONFIG_TRANSACTION,
                    "Changing the channel's configuration is not supported.",
                )
            rwsets = _check_action(action)
            endorsements = self._check_endorsements(action)
        except MalformedTransaction as error:
            code, reason = error.code, str(error)
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise  # of this moment, not of the transaction
        except BaseException as error:
            # One transaction must never stop all the others, whatever no check has foreseen; a
            # panic of the certificates' parser, which is Rust, is no Exception.
            code, reason = transaction_pb2.INVALID_OTHER_REASON, f"It cannot be checked: {error!r}"
        else:
            return CheckedTransaction(
                transaction_pb2.VALID, txid, kind, _named(action), rwsets, endorsements
            )
        log_rejection(self._channel, number, position, txid, code, reason)
        return CheckedTransaction(code, txid, kind)

    def _open(self, envelope: bytes) -> OpenedTransaction:
        try:
            transaction = open_transaction(envelope)
        except MalformedTransaction as error:
            if error.code not in _BEFORE_SIGNATURE:
                # A broken signature comes first: it explains whatever else does not fit.
                self._check_creator(_signed_data(envelope))
            raise
        if not transaction.creator:
            raise MalformedTransaction(
                transaction_pb2.BAD_COMMON_HEADER,
                "The transaction has no creator, which only that of block 0 may lack.",
            )
        self._check_creator(transaction.signed_data())
        return transaction

    def _check_creator(self, signed: SignedData) -> None:
        try:
            self._member(signed.identity).verify(signed.message, signed.signature)
        except IdentityError as error:
            raise MalformedTransaction(
                transaction_pb2.BAD_CREATOR_SIGNATURE, f"The creator's signature fails: {error}"
            ) from error

    def _member(self, serialized: bytes) -> Identity:
        """A member of one of the channel's organisations. Raises IdentityError."""
        mspid = parse_serialized(serialized).mspid
        msp = self._msps.get(mspid)
        if msp is None:
            raise IdentityError(f"The organisation {mspid!r} is not in the channel.")
        identity = msp.deserialize(serialized)
        msp.validate(identity, at=identity.certificate.not_valid_before_utc + _BEGUN)
        return identity

    def _check_endorsements(self, action: EndorsedAction) -> Endorsements:
        """Those that hold, one a member; one that does not is no reason to reject the others."""
        if len(action.endorsements) > MAX_ENDORSEMENTS:
            raise MalformedTransaction(
                transaction_pb2.ENDORSEMENT_POLICY_FAILURE,
                f"The transaction has {len(action.endorsements)} endorsements: at most "
                f"{MAX_ENDORSEMENTS} are verified.",
            )
        endorsers: list[Identity] = []
        reasons: list[str] = []
        for signed in action.endorsement_data():
            try:
                identity = self._member(signed.identity)
                if identity not in endorsers:
                    identity.verify(signed.message, signed.signature)
                    endorsers.append(identity)
            except IdentityError as error:
                reasons.append(str(error))
        return Endorsements(action.chaincode, tuple(endorsers), tuple(reasons), self._policies)


def _signed_data(envelope: bytes) -> SignedData:
    """The creator's signature of an envelope whose headers are known to parse."""
    outer = common_pb2.Envelope.FromString(envelope)
    header = common_pb2.Payload.FromString(outer.payload).header
    creator = common_pb2.SignatureHeader.FromString(header.signature_header).creator
    return SignedData(outer.payload, creator, outer.signature)


def _open_block(number: int, read: Callable[[int], bytes]) -> tuple[common_pb2.Block, int]:
    marshalled = read(number)
    block = blocks.parse_block(marshalled)
    if block.header.number != number:
        raise MalformedBlock(f"The ordering gave block {block.header.number} for {number}.")
    if blocks.data_hash(block.data.data) != block.header.data_hash:
        raise MalformedBlock(f"The data of block {number} does not fit its header.")
    return block, len(marshalled)


def _named(action: EndorsedAction) -> str:
    return f"{action.chaincode}:{action.chaincode_action.chaincode_id.version}"


def _check_action(action: EndorsedAction) -> list[tuple[str, kv_rwset_pb2.KVRWSet]]:
    """In the order of Fabric's dispatcher; what is this peer's own comes after."""
    rwsets = _open_rwset(action.chaincode_action.results)
    _check_chaincode(action)
    _check_event(action)
    _check_namespaces(rwsets)
    return [(part.namespace, rwset) for part, rwset in rwsets]


def _check_chaincode(action: EndorsedAction) -> None:
    proposed, endorsed = action.extension, action.chaincode_action
    for what, message in (("header", proposed), ("endorsed action", endorsed)):
        if not message.HasField("chaincode_id"):
            raise MalformedTransaction(
                transaction_pb2.INVALID_OTHER_REASON, f"The {what} has no chaincode id."
            )
    if not action.chaincode:
        raise MalformedTransaction(
            transaction_pb2.INVALID_CHAINCODE, "The header names no chaincode."
        )
    if endorsed.chaincode_id.name != action.chaincode:
        raise MalformedTransaction(
            transaction_pb2.INVALID_CHAINCODE,
            f"The header names the chaincode {action.chaincode!r} and the endorsed action "
            f"{endorsed.chaincode_id.name!r}: they must be the same.",
        )
    if not endorsed.chaincode_id.version:
        raise MalformedTransaction(
            transaction_pb2.INVALID_CHAINCODE,
            f"The endorsed action names no version of the chaincode {action.chaincode!r}.",
        )


def _check_event(action: EndorsedAction) -> None:
    if not action.chaincode_action.events:
        return
    event = _parse(
        chaincode_event_pb2.ChaincodeEvent,
        action.chaincode_action.events,
        "chaincode event",
        transaction_pb2.INVALID_OTHER_REASON,
    )
    if event.chaincode_id != action.chaincode:
        raise MalformedTransaction(
            transaction_pb2.INVALID_OTHER_REASON,
            f"The event is of the chaincode {event.chaincode_id!r}, not of {action.chaincode!r}.",
        )


def _open_rwset(results: bytes) -> list[_Part]:
    bad = transaction_pb2.BAD_RWSET
    parts = _parse(rwset_pb2.TxReadWriteSet, results, "read-write set", bad).ns_rwset
    opened: list[_Part] = []
    for part in parts:
        what = f"rwset of {part.namespace!r}"
        opened.append((part, _parse(kv_rwset_pb2.KVRWSet, part.rwset, what, bad)))
        for collection in part.collection_hashed_rwset:
            _parse(kv_rwset_pb2.HashedRWSet, collection.hashed_rwset, f"hashed {what}", bad)
    return opened


def _check_namespaces(rwsets: Sequence[_Part]) -> None:
    seen: set[str] = set()
    for part, _ in rwsets:
        if part.namespace in seen:
            raise MalformedTransaction(
                transaction_pb2.ILLEGAL_WRITESET,
                f"The namespace {part.namespace!r} is in the read-write set twice.",
            )
        seen.add(part.namespace)
    for part, _ in rwsets:
        if part.collection_hashed_rwset:
            raise MalformedTransaction(
                transaction_pb2.INVALID_WRITESET,
                f"The read-write set of {part.namespace!r} has private data, which is not kept.",
            )


def _parse(kind: type[_M], data: bytes, what: str, code: ValidationCode) -> _M:
    try:
        return parse(kind, data, what)
    except MalformedMessage as error:
        raise MalformedTransaction(code, str(error)) from error
