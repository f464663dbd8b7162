"""The checks of a transaction that need no ledger: form, signatures, endorsement, namespaces.

Follows release 2.5: core/common/validation/msgvalidation.go, core/committer/txvalidator/v20 and its
plugindispatcher, and for system namespaces txvalidator/v14. What needs the ledger (duplicates and
conflicts) is found when the block is committed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from google.protobuf.message import Message

from chaincode_support.ledger.transaction import UNKNOWN_TYPE, CheckedTransaction
from chaincode_support.system.names import SYSTEM_CHAINCODES
from selvedge_common.logs import get_logger
from selvedge_common.msp import (
    MSP,
    Identity,
    IdentityError,
    IdentityExpired,
    IdentityNotYetValid,
    PolicyError,
)
from selvedge_common.msp.identity import parse_serialized
from selvedge_common.msp.policies import PolicyGroup, SignedData
from selvedge_common.protoutil import blocks
from selvedge_common.protoutil.config_block import ENDORSEMENT
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

_log = get_logger("committer.validation")

# Only the chaincode of that name may write there; a chaincode that is called may not either.
SYSTEM_NAMESPACES = SYSTEM_CHAINCODES | {""}

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

# Reasons repeat what strangers wrote, as long as they please.
_LOGGED_CHARACTERS = 500


class Validator:
    """Checks a block's transactions against the channel's configuration, on a pool of threads."""

    def __init__(
        self, channel: str, msps: Mapping[str, MSP], application: PolicyGroup, workers: int
    ) -> None:
        """`msps`: the channel's organisations by MSP id; `application`: the policies of its
        Application group; `workers`: threads to verify with."""
        self._channel = channel
        self._msps = msps
        self._application = application
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix=f"validate-{channel}")

    async def open(self, number: int, marshalled: bytes) -> common_pb2.Block:
        """Parse block `number`. Raises MalformedBlock, also when its data is not its header's.

        On a thread: of a large block this would hold up everything else on the loop.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._pool, _open_block, number, marshalled
        )

    async def check(self, block: common_pb2.Block) -> list[CheckedTransaction]:
        """One result for each of the block's envelopes, in their order; nothing is raised for them.

        The outcome depends on the block and the configuration alone, never on the clock.
        """
        envelopes = block.data.data
        # One task for each thread and not for each transaction: the hand-over costs as much as a
        # signature.
        size = -(-len(envelopes) // self._workers) or 1
        loop = asyncio.get_running_loop()
        parts = await asyncio.gather(
            *(
                loop.run_in_executor(self._pool, self._check_part, block.header.number, start, part)
                for start in range(0, len(envelopes), size)
                if (part := envelopes[start : start + size])
            )
        )
        return [checked for part in parts for checked in part]

    def close(self) -> None:
        """End the threads once they have finished."""
        self._pool.shutdown()

    def _check_part(
        self, number: int, start: int, envelopes: Sequence[bytes]
    ) -> list[CheckedTransaction]:
        return [
            self.check_transaction(number, position, envelope)
            for position, envelope in enumerate(envelopes, start)
        ]

    def check_transaction(self, number: int, position: int, envelope: bytes) -> CheckedTransaction:
        """Check one marshalled envelope of block `number`; on the caller's thread."""
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
            rwsets = self._check_action(action)
        except MalformedTransaction as error:
            code, reason = error.code, str(error)
        except (MemoryError, KeyboardInterrupt, SystemExit):
            raise  # of this moment, not of the transaction
        except BaseException as error:
            # One transaction must never stop all the others, whatever no check has foreseen; a
            # panic of the certificates' parser, which is Rust, is no Exception.
            code, reason = transaction_pb2.INVALID_OTHER_REASON, f"It cannot be checked: {error!r}"
        else:
            return CheckedTransaction(transaction_pb2.VALID, txid, kind, _named(action), rwsets)
        _log.warning(
            "transaction rejected",
            channel=self._channel,
            block=number,
            position=position,
            txid=txid,
            code=transaction_pb2.TxValidationCode.Name(code),
            reason=reason[:_LOGGED_CHARACTERS],
        )
        return CheckedTransaction(code, txid, kind)

    def _open(self, envelope: bytes) -> OpenedTransaction:
        try:
            transaction = open_transaction(envelope)
        except MalformedTransaction as error:
            if error.code not in _BEFORE_SIGNATURE:
                # A broken signature comes first: it explains whatever else does not fit.
                self._check_creator(_signed_data(envelope))
            raise
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
        # The endorser and the ordering ask for the time. Here, as in Fabric, it must not matter, or
        # a block would come out differently when it is committed again later.
        with suppress(IdentityExpired, IdentityNotYetValid):
            msp.validate(identity)
        return identity

    def _check_action(self, action: EndorsedAction) -> list[tuple[str, kv_rwset_pb2.KVRWSet]]:
        """In the order of Fabric's dispatcher; what is this peer's own comes after."""
        rwsets = _open_rwset(action.chaincode_action.results)
        _check_chaincode(action)
        _check_event(action)
        _check_namespaces(action.chaincode, rwsets)
        self._check_endorsements(action)
        return [(part.namespace, rwset) for part, rwset in rwsets]

    def _check_endorsements(self, action: EndorsedAction) -> None:
        """The valid endorsements, one a member, must satisfy /Channel/Application/Endorsement.

        That is what Fabric asks of a chaincode whose definition names no policy of its own, and
        there are no definitions here: every namespace has this policy.
        """
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
        try:
            if self._application.satisfied(ENDORSEMENT, endorsers, self._msps):
                return
        except PolicyError as error:
            reasons.append(str(error))
        who = ", ".join(map(str, endorsers)) or "nobody who counts"
        raise MalformedTransaction(
            transaction_pb2.ENDORSEMENT_POLICY_FAILURE,
            f"Endorsed by {who}, which does not satisfy /Channel/Application/{ENDORSEMENT}. "
            f"{' '.join(reasons)}".rstrip(),
        )


def _signed_data(envelope: bytes) -> SignedData:
    """The creator's signature of an envelope whose headers are known to parse."""
    outer = common_pb2.Envelope.FromString(envelope)
    header = common_pb2.Payload.FromString(outer.payload).header
    creator = common_pb2.SignatureHeader.FromString(header.signature_header).creator
    return SignedData(outer.payload, creator, outer.signature)


def _open_block(number: int, marshalled: bytes) -> common_pb2.Block:
    block = blocks.parse_block(marshalled)
    if block.header.number != number:
        raise MalformedBlock(f"The ordering gave block {block.header.number} for {number}.")
    if blocks.data_hash(block.data.data) != block.header.data_hash:
        raise MalformedBlock(f"The data of block {number} does not fit its header.")
    return block


def _named(action: EndorsedAction) -> str:
    return f"{action.chaincode}:{action.chaincode_action.chaincode_id.version}"


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
    return [
        (part, _parse(kv_rwset_pb2.KVRWSet, part.rwset, f"rwset of {part.namespace!r}", bad))
        for part in parts
    ]


def _check_namespaces(chaincode: str, rwsets: Sequence[_Part]) -> None:
    seen: set[str] = set()
    for part, _ in rwsets:
        if part.namespace in seen:
            raise MalformedTransaction(
                transaction_pb2.ILLEGAL_WRITESET,
                f"The namespace {part.namespace!r} is in the read-write set twice.",
            )
        seen.add(part.namespace)
    for part, rwset in rwsets:
        if part.collection_hashed_rwset:
            raise MalformedTransaction(
                transaction_pb2.INVALID_WRITESET,
                f"The read-write set of {part.namespace!r} has private data, which is not kept.",
            )
        writes = rwset.writes or rwset.metadata_writes
        if writes and part.namespace in SYSTEM_NAMESPACES and part.namespace != chaincode:
            raise MalformedTransaction(
                transaction_pb2.ILLEGAL_WRITESET,
                f"The chaincode {chaincode!r} writes to the system namespace {part.namespace!r}.",
            )


def _parse(kind: type[_M], data: bytes, what: str, code: ValidationCode) -> _M:
    try:
        return parse(kind, data, what)
    except MalformedMessage as error:
        raise MalformedTransaction(code, str(error)) from error
