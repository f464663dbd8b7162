"""An application on npm `@hyperledger/fabric-gateway` that reads blocks."""

from pathlib import Path

from tests.e2e.stack import LISTENERS, Stack
from tests.sdks import application
from tests.sdks.application import Credentials, Listener, credentials, environment
from tests.shims.build import FABRIC_GATEWAY

_PROGRAM = Path(__file__).parent / "fabric-gateway" / "application.js"


class Application(application.Application):
    """An application.

    Args:
        peer: the listener that it is connected to.
        who: it acts as; user1, if nobody is named.
    """

    def __init__(self, stack: Stack, peer: str, who: Credentials | None = None) -> None:
        who = who or credentials(stack)
        roots = stack.user_tls("user1") / "ca.crt"
        super().__init__(
            [
                *(_PROGRAM, LISTENERS[peer][0], roots),
                *(who.certificate, who.key, who.tls_certificate, who.tls_key),
            ],
            environment(FABRIC_GATEWAY),
            stack.folder / "fabric-gateway.log",
        )

    def follow(
        self, form: str, start: int | None = None, checkpoint: Path | None = None
    ) -> Listener:
        """What comes of blocks, whole (`block`), `filtered`, or with `private` data.

        Args:
            form: one of these.
            start: the first block, if the checkpoint does not say; the next one, if neither does.
            checkpoint: the file of a checkpointer.
        """
        options = {"startBlock": start, "checkpoint": checkpoint and str(checkpoint)}
        given = {name: value for name, value in options.items() if value is not None}
        return self.listen("follow", form=form, **given)
