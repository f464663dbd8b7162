"""The contract as an application calls it, on whichever shim it runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.e2e.clients import CHANNEL, Client

from selvedge_common.protoutil.endorsements import create_transaction
from selvedge_common.protoutil.proposals import create_proposal, sign_proposal
from selvedge_protos.common import common_pb2
from selvedge_protos.peer import proposal_pb2, proposal_response_pb2, transaction_pb2


@dataclass(frozen=True)
class Proposed:
    """A proposal and what the peer made of it."""

    txid: str
    proposal: proposal_pb2.Proposal
    signature: bytes
    answer: proposal_response_pb2.ProposalResponse

    @property
    def response(self) -> proposal_response_pb2.Response:
        """What the chaincode answered, or why the peer did not endorse it."""
        return self.answer.response

    @property
    def action(self) -> proposal_pb2.ChaincodeAction:
        """What was endorsed: the read-write set and the event."""
        payload = proposal_response_pb2.ProposalResponsePayload.FromString(self.answer.payload)
        return proposal_pb2.ChaincodeAction.FromString(payload.extension)


class Contract:
    """The contract of one chaincode, called by its name, as one user."""

    def __init__(self, client: Client, name: str) -> None:
        self.client = client
        self.name = name

    def propose(
        self,
        function: str,
        *args: str,
        transient: Mapping[str, bytes] | None = None,
        is_init: bool = False,
    ) -> Proposed:
        """Have a call endorsed, or refused."""
        words = [word.encode() for word in (function, *args)]
        creator = self.client.signer.serialized
        proposal, txid = create_proposal(
            CHANNEL, self.name, words, creator, transient=transient, is_init=is_init
        )
        signed = sign_proposal(proposal, self.client.signer)
        answer = self.client.endorse_signed(signed)
        return Proposed(txid, proposal, signed.signature, answer)

    def endorsed(
        self, function: str, *args: str, transient: Mapping[str, bytes] | None = None
    ) -> Proposed:
        """A call that the chaincode answered well."""
        proposed = self.propose(function, *args, transient=transient)
        assert proposed.response.status == 200, proposed.response.message
        return proposed

    def text(self, function: str, *args: str) -> str:
        """What a function answers; nothing is submitted."""
        return self.endorsed(function, *args).response.payload.decode()

    def json(self, function: str, *args: str) -> Any:
        """What a function answers in JSON; nothing is submitted."""
        return json.loads(self.text(function, *args))

    def refusal(self, function: str, *args: str) -> str:
        """Why a call is not endorsed."""
        response = self.propose(function, *args).response
        assert response.status == 500, response
        return response.message

    def submit(self, function: str, *args: str) -> str:
        """Run a transaction and wait until it is committed, valid; gives its id."""
        return self.commit(self.endorsed(function, *args))

    def commit(self, *proposed: Proposed) -> str:
        """Order what is endorsed and wait until it is committed, valid; gives the last id."""
        assert set(self.codes(*proposed)) == {transaction_pb2.VALID}
        return proposed[-1].txid

    def codes(self, *proposed: Proposed) -> list[int]:
        """Order what is endorsed and wait until it is in blocks; gives the code of each."""
        start = self.client.height()
        signer = self.client.signer
        answers = self.client.broadcast(
            *(create_transaction(each.proposal, [each.answer], signer) for each in proposed)
        )
        assert {answer.status for answer in answers} == {common_pb2.SUCCESS}
        found = self.client.committed(start, {each.txid for each in proposed})
        return [found[each.txid][1] for each in proposed]

    def answers(self) -> bool:
        """Whether it is there, be it only to say that its Init is due."""
        response = self.propose("Transaction").response
        return response.status == 200 or "has not been initialized" in response.message
