"""Transactions and blocks made the way clients and orderers make them."""

from collections.abc import Callable
from typing import Any

import pytest

from selvedge_common.protoutil.endorsements import create_proposal_response, create_transaction
from selvedge_common.protoutil.proposals import create_proposal, open_proposal, sign_proposal
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import chaincode_event_pb2, chaincode_pb2, proposal_response_pb2

Endorse = Callable[..., tuple[Any, Any]]


@pytest.fixture(scope="session")
def endorse(client: Any, peer: Any) -> Endorse:
    """Propose and have endorsed: gives the proposal and one endorser's response."""

    def endorse(
        *,
        results: bytes = b"read-write set",
        event: str = "",
        status: int = 200,
        by: Any = peer,
        proposal: Any = None,
    ) -> tuple[Any, Any]:
        if proposal is None:
            transient = {"secret": b"value"}
            proposal, _ = create_proposal(
                "mychannel", "basic", [b"a"], client.serialized, transient=transient
            )
        opened = open_proposal(sign_proposal(proposal, client))
        events = chaincode_event_pb2.ChaincodeEvent(
            chaincode_id="basic", tx_id=opened.txid, event_name=event, payload=b"event payload"
        )
        response = create_proposal_response(
            opened,
            proposal_response_pb2.Response(status=status, payload=b"answer"),
            results,
            events.SerializeToString() if event else b"",
            chaincode_pb2.ChaincodeID(name="basic", version="1.0"),
            by,
        )
        return proposal, response

    return endorse


@pytest.fixture(scope="session")
def transact(client: Any, endorse: Endorse) -> Callable[..., common_pb2.Envelope]:
    """An endorsed transaction; takes what `endorse` takes."""

    def transact(**how: Any) -> common_pb2.Envelope:
        proposal, response = endorse(**how)
        return create_transaction(proposal, [response], client)

    return transact
