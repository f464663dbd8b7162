"""An application that notes what it hears of: run as a process, to be killed."""

import asyncio
import os
import sys
from functools import partial
from pathlib import Path

from selvedge_client import Checkpoint, Client, User


async def main(folder: str, noted: str, *addresses: str) -> None:
    """Note events until the last one.

    Args:
        folder: of the user.
        noted: the file of what was heard, a line each.
        addresses: the hubs.
    """
    user = partial(User.read, Path(folder) / "msp", Path(folder) / "tls")
    checkpoint = Checkpoint(f"{noted}.checkpoint")
    file = os.open(noted, os.O_WRONLY | os.O_APPEND)
    async for event in Client(addresses, user).subscribe(
        "mychannel", names=["Told*"], start=0, checkpoint=checkpoint
    ):
        os.write(file, f"{event.txid}\n".encode())
        await checkpoint.advance(event.position)
        if event.name == "Told, and the last":
            return


asyncio.run(main(*sys.argv[1:]))
