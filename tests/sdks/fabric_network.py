"""An application on npm `fabric-network` 2.2."""

import json
from pathlib import Path
from typing import Any

from tests.e2e.clients import CHANNEL
from tests.e2e.stack import LISTENERS, Stack
from tests.sdks import application
from tests.sdks.application import Credentials, credentials, environment
from tests.shims.build import FABRIC_NETWORK

_PROGRAM = Path(__file__).parent / "fabric-network" / "application.js"


def connection_profile(stack: Stack, peer: str) -> dict[str, Any]:
    """The connection profile of a stack, with the listener of that name as its peer."""
    roots = {"path": str(stack.user_tls("user1") / "ca.crt")}
    at, orderer = (f"grpcs://{LISTENERS[name][0]}" for name in (peer, "ordering"))
    return {
        "channels": {CHANNEL: {"orderers": ["orderer"], "peers": {"peer": {}}}},
        "organizations": {"Org1": {"mspid": "Org1MSP", "peers": ["peer"]}},
        "orderers": {"orderer": {"url": orderer, "tlsCACerts": roots}},
        "peers": {"peer": {"url": at, "tlsCACerts": roots}},
    }


class Application(application.Application):
    """An application.

    Args:
        who: it acts as; user1, if nobody is named.
        peer: the listener that is its peer; at `events`, the hub, it can do nothing but listen.
    """

    def __init__(self, stack: Stack, who: Credentials | None = None, peer: str = "peer") -> None:
        who = who or credentials(stack)
        profile = stack.folder / f"fabric-network-{peer}.json"
        profile.write_text(json.dumps(connection_profile(stack, peer)))
        log = stack.folder / "fabric-network.log"
        super().__init__(
            [_PROGRAM, profile, who.certificate, who.key, who.tls_certificate, who.tls_key],
            # Else some of its log would be on the standard output.
            {**environment(FABRIC_NETWORK), "HFC_LOGGING": json.dumps({"warn": str(log)})},
            log,
        )

    def submit(self, chaincode: str, name: str, *args: str, **options: Any) -> Any:
        """Submit a transaction; gives its `txid` and `payload` once the SDK has seen its commit.

        Args:
            options: `transient`, or `strategy`: the SDK's event handler for this transaction.
        """
        return self.ask("submit", chaincode=chaincode, name=name, args=args, **options)

    def evaluate(self, chaincode: str, name: str, *args: str, **options: Any) -> Any:
        """What a function of a chaincode answers."""
        return self.ask("evaluate", chaincode=chaincode, name=name, args=args, **options)
