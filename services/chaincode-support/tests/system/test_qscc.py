"""qscc by proposal: blocks and transactions of a channel, for its readers."""

import dataclasses
from dataclasses import dataclass

import pytest
from endorsing import Endorsing
from testchannel import CHANNEL, Network, add_block, writes

from selvedge_common.protoutil import blocks
from selvedge_protos.common.common_pb2 import Block
from selvedge_protos.common.ledger_pb2 import BlockchainInfo
from selvedge_protos.peer.proposal_pb2 import ChaincodeAction
from selvedge_protos.peer.proposal_response_pb2 import ProposalResponsePayload, Response
from selvedge_protos.peer.transaction_pb2 import ProcessedTransaction, TxValidationCode

FUNCTIONS = [
    "GetChainInfo",
    "GetBlockByNumber",
    "GetBlockByHash",
    "GetBlockByTxID",
    "GetTransactionByID",
]
# Fabric's for the newest block.
NEWEST = 2**64 - 1


@dataclass
class Chain:
    """A channel with block 0, one with a valid and a rejected transaction, and a last one."""

    endorsing: Endorsing
    valid: str
    rejected: str
    envelopes: list[bytes]

    async def ask(
        self,
        function: str,
        *args: bytes,
        header: str = CHANNEL,
    ) -> Response:
        """What qscc answers."""
        signed = self.endorsing.sign(function.encode(), *args, channel=header, chaincode="qscc")
        return (await self.endorsing.send(signed)).response

    async def found(self, function: str, *args: bytes, header: str = CHANNEL) -> bytes:
        """What qscc finds."""
        response = await self.ask(function, CHANNEL.encode(), *args, header=header)
        assert (response.status, response.message) == (200, "")
        return response.payload

    def block(self, number: int) -> Block:
        return Block.FromString(self.endorsing.peer.ledger.block(number))


@pytest.fixture
async def chain(endorsing: Endorsing, network: Network) -> Chain:
    ledger = endorsing.peer.ledger
    valid, first = network.transaction(writes(k=b"1"))
    proposed = network.propose(b"x")
    # No member of the channel endorsed it.
    second = network.endorse(proposed, writes(k=b"2"), endorsers=[network.stranger])
    codes = await add_block(network, ledger, first, second.SerializeToString())
    assert codes == ["VALID", "ENDORSEMENT_POLICY_FAILURE"]
    await add_block(network, ledger, network.transaction(writes(k=b"3"))[1])
    return Chain(endorsing, valid, proposed[1], [first, second.SerializeToString()])


@pytest.mark.parametrize("header", [CHANNEL, ""])
async def test_every_function_answers_with_and_without_a_channel_in_the_header(
    chain: Chain, header: str
) -> None:
    digest = blocks.header_hash(chain.block(1).header)
    info = BlockchainInfo.FromString(await chain.found("GetChainInfo", header=header))
    assert info == BlockchainInfo(
        height=3,
        currentBlockHash=blocks.header_hash(chain.block(2).header),
        previousBlockHash=digest,
    )
    for function, key in [
        ("GetBlockByNumber", b"1"),
        ("GetBlockByHash", digest),
        ("GetBlockByTxID", chain.valid.encode()),
        ("GetBlockByTxID", chain.rejected.encode()),
    ]:
        block = Block.FromString(await chain.found(function, key, header=header))
        assert block == chain.block(1)
    found = await chain.found("GetTransactionByID", chain.valid.encode(), header=header)
    transaction = ProcessedTransaction.FromString(found)
    assert transaction.transactionEnvelope.SerializeToString() == chain.envelopes[0]
    assert transaction.validationCode == TxValidationCode.VALID


async def test_a_rejected_transaction_is_found_with_its_code(chain: Chain) -> None:
    found = await chain.found("GetTransactionByID", chain.rejected.encode())
    transaction = ProcessedTransaction.FromString(found)
    assert transaction.transactionEnvelope.SerializeToString() == chain.envelopes[1]
    assert transaction.validationCode == TxValidationCode.ENDORSEMENT_POLICY_FAILURE


@pytest.mark.parametrize(
    ("asked", "number"), [(b"0", 0), (b"2", 2), (b"02", 2), (b"%d" % NEWEST, 2)]
)
async def test_blocks_by_number(chain: Chain, asked: bytes, number: int) -> None:
    block = Block.FromString(await chain.found("GetBlockByNumber", asked))
    assert block.header.number == number


async def test_the_endorsement_reads_and_writes_nothing(chain: Chain) -> None:
    answer = await chain.endorsing.send(
        chain.endorsing.sign(b"GetChainInfo", CHANNEL.encode(), chaincode="qscc")
    )
    payload = ProposalResponsePayload.FromString(answer.payload)
    action = ChaincodeAction.FromString(payload.extension)
    assert (action.chaincode_id.name, action.chaincode_id.version) == ("qscc", "syscc")
    assert (action.results, action.events) == (b"", b"")
    chain.endorsing.network.peer.verify(
        answer.payload + answer.endorsement.endorser, answer.endorsement.signature
    )


async def test_without_a_channel_in_the_header_nothing_is_endorsed(chain: Chain) -> None:
    answer = await chain.endorsing.send(
        chain.endorsing.sign(b"GetChainInfo", CHANNEL.encode(), channel="", chaincode="qscc")
    )
    assert answer.response.status == 200
    assert (answer.payload, answer.HasField("endorsement")) == (b"", False)


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_whoever_may_not_read_the_channel_is_refused(chain: Chain, function: str) -> None:
    closed = chain.endorsing.add_closed_channel()
    response = await chain.ask(function, closed.encode(), b"0")
    assert (response.status, response.payload) == (500, b"")
    assert response.message.startswith(f"access denied for channel {closed}: ")
    assert "does not satisfy the policy /Channel/Application/Readers" in response.message


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_whom_the_channel_does_not_know_is_refused(chain: Chain, function: str) -> None:
    closed = chain.endorsing.add_closed_channel()
    channels = chain.endorsing.channels
    channels[closed] = dataclasses.replace(channels[closed], msps={})
    response = await chain.ask(function, closed.encode(), b"0")
    assert response.status == 500
    assert response.message.startswith(f"access denied for channel {closed}: ")
    assert "Org1MSP" in response.message


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("header", [CHANNEL, ""])
async def test_an_unknown_channel_says_which_there_are(
    chain: Chain, function: str, header: str
) -> None:
    response = await chain.ask(function, b"nowhere", b"0", header=header)
    assert response.status == 500
    assert response.message == f"channel 'nowhere' is unknown: this peer has {CHANNEL}"


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_call_without_arguments_says_what_is_missing(chain: Chain, function: str) -> None:
    response = await chain.ask(function)
    assert response.status == 500
    assert response.message == "the call names no channel: give it as the first argument"


@pytest.mark.parametrize("function", FUNCTIONS[1:])
@pytest.mark.parametrize("args", [(), (b"",)])
async def test_a_call_without_a_key_says_what_is_missing(
    chain: Chain, function: str, args: tuple[bytes, ...]
) -> None:
    response = await chain.ask(function, CHANNEL.encode(), *args)
    assert response.status == 500
    assert response.message.endswith(" is missing: give it as the second argument")


@pytest.mark.parametrize(
    ("function", "key", "reason"),
    [
        ("GetBlockByNumber", b"3", "has no block 3: its height is 3"),
        ("GetBlockByNumber", b"9" * 20, "has no block 99999999999999999999"),
        ("GetBlockByNumber", b"9" * 21, "is no block number"),
        ("GetBlockByNumber", b"-1", "-1 is no block number: give a decimal one"),
        ("GetBlockByNumber", b" 1", " 1 is no block number"),
        ("GetBlockByNumber", b"1_0", "1_0 is no block number"),
        ("GetBlockByNumber", b"one\n", "one\\n is no block number"),
        ("GetBlockByNumber", "٣".encode(), "is no block number"),
        ("GetBlockByNumber", b"\xff", "is no block number"),
        ("GetBlockByHash", bytes(32), "has no block with the header hash 0000"),
        ("GetBlockByHash", b"x" * 100_000, "has no block with the header hash 7878"),
        ("GetBlockByTxID", b"nobody", "has no block with the transaction 'nobody'"),
        ("GetBlockByTxID", b"\xff", "has no block with the transaction"),
        ("GetTransactionByID", b"nobody", "has no block with the transaction 'nobody'"),
        ("GetTransactionByID", b"n" * 100_000, "has no block with the transaction 'nnnn"),
    ],
)
async def test_what_is_not_there_is_refused_in_one_short_line(
    chain: Chain, function: str, key: bytes, reason: str
) -> None:
    response = await chain.ask(function, CHANNEL.encode(), key)
    assert (response.status, response.payload) == (500, b"")
    assert reason in response.message
    assert len(response.message) < 300
    assert "\n" not in response.message


@pytest.mark.parametrize("function", ["", "getchaininfo", "Get\nBlock", "JoinChain"])
async def test_an_unknown_function_says_which_there_are(chain: Chain, function: str) -> None:
    response = await chain.ask(function, CHANNEL.encode())
    assert response.status == 500
    shown = function.replace("\n", "\\n")
    assert response.message == f"qscc has no function {shown}: it has {', '.join(FUNCTIONS)}"
