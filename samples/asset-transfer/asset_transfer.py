"""Assets with an owner and a value, on the ledger: the sample chaincode in Python."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

from selvedge_shim import Chaincode, Response, Stub, error, start, success


@dataclass(frozen=True)
class Asset:
    """What is kept under its id."""

    id: str
    owner: str
    value: int

    def to_bytes(self) -> bytes:
        """JSON with sorted keys: every peer must come to the same bytes."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":")).encode()


class Refused(Exception):
    """What was asked for cannot be done; the client is told why."""


class AssetTransfer(Chaincode):
    """Creates, reads, updates, transfers, deletes and lists assets; each change sets an event."""

    def __init__(self) -> None:
        # Function: the handler, and what its arguments are.
        self._functions: dict[str, tuple[Callable[..., Awaitable[bytes]], list[str]]] = {
            "CreateAsset": (self.create, ["ID", "OWNER", "VALUE"]),
            "ReadAsset": (self.read, ["ID"]),
            "UpdateAsset": (self.update, ["ID", "VALUE"]),
            "TransferAsset": (self.transfer, ["ID", "NEW_OWNER"]),
            "DeleteAsset": (self.delete, ["ID"]),
            "ListAssets": (self.list, ["FIRST_ID", "END_ID"]),
        }

    async def invoke(self, stub: Stub) -> Response:
        """Run the function that the first argument names."""
        function, arguments = stub.function_and_parameters
        try:
            handler, names = self._functions[function]
        except KeyError:
            known = ", ".join(self._functions)
            return error(f"there is no function {function!r}: use one of {known}", 404)
        if len(arguments) != len(names):
            return error(f"{function} takes {' '.join(names)}: it was given {len(arguments)}", 400)
        try:
            return success(await handler(stub, *arguments))
        except Refused as refusal:
            return error(str(refusal), 400)

    async def create(self, stub: Stub, asset_id: str, owner: str, value: str) -> bytes:
        """Put a new asset on the ledger."""
        if await stub.get_state(asset_id):
            raise Refused(f"the asset {asset_id} exists already")
        return await _store(stub, Asset(asset_id, owner, _integer(value)), "AssetCreated")

    async def read(self, stub: Stub, asset_id: str) -> bytes:
        """Give one asset."""
        return (await _load(stub, asset_id)).to_bytes()

    async def update(self, stub: Stub, asset_id: str, value: str) -> bytes:
        """Change what an asset is worth."""
        asset = await _load(stub, asset_id)
        return await _store(stub, replace(asset, value=_integer(value)), "AssetUpdated")

    async def transfer(self, stub: Stub, asset_id: str, owner: str) -> bytes:
        """Hand an asset to a new owner."""
        asset = await _load(stub, asset_id)
        return await _store(stub, replace(asset, owner=owner), "AssetTransferred")

    async def delete(self, stub: Stub, asset_id: str) -> bytes:
        """Take an asset off the ledger."""
        asset = await _load(stub, asset_id)
        await stub.delete_state(asset_id)
        stub.set_event("AssetDeleted", asset.to_bytes())
        return asset.to_bytes()

    async def list(self, stub: Stub, first: str, end: str) -> bytes:
        """Give the assets from one id (included) to another (not included); empty ids are open."""
        rows = [value async for _, value in stub.get_state_by_range(first, end)]
        return b"[" + b",".join(rows) + b"]"


async def _load(stub: Stub, asset_id: str) -> Asset:
    stored = await stub.get_state(asset_id)
    if not stored:
        raise Refused(f"there is no asset {asset_id}")
    return Asset(**json.loads(stored))


async def _store(stub: Stub, asset: Asset, event: str) -> bytes:
    content = asset.to_bytes()
    await stub.put_state(asset.id, content)
    stub.set_event(event, content)
    return content


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused(f"the value {text!r} is not a whole number") from None


if __name__ == "__main__":
    start(AssetTransfer())
