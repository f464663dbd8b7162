"""What a Fabric peer may keep for its chaincodes and this ledger does not."""

from collections.abc import Mapping

from chaincode_support.ledger.errors import NotKept
from chaincode_support.ledger.range_iterator import RangeIterator
from selvedge_common.quoting import quoted


class WithoutPrivateData:
    """The part of a simulation that asks for private data or an index: every call raises NotKept.

    The methods are those of Fabric's TxSimulator (core/ledger/ledger_interface.go), so that whoever
    serves chaincodes need not know what the ledger keeps.
    """

    def query(self, namespace: str, query: str, page_size: int, bookmark: str) -> RangeIterator:
        """The rows whose values, JSON objects, match a Mango query."""
        raise NotKept(
            "Rich queries are not answered by this ledger: read keys or ranges of them, such as "
            "the composite keys of an index that the chaincode writes itself."
        )

    def get_private(self, namespace: str, collection: str, key: str) -> bytes | None:
        """The value of a private key."""
        raise _not_kept(namespace, collection)

    def get_private_hash(self, namespace: str, collection: str, key: str) -> bytes | None:
        """The SHA-256 of a private key's value, which every peer has."""
        raise _not_kept(namespace, collection)

    def put_private(self, namespace: str, collection: str, key: str, value: bytes) -> None:
        """Write a private key."""
        raise _not_kept(namespace, collection)

    def delete_private(self, namespace: str, collection: str, key: str) -> None:
        """Delete a private key."""
        raise _not_kept(namespace, collection)

    def purge_private(self, namespace: str, collection: str, key: str) -> None:
        """Delete a private key with all that it was before."""
        raise _not_kept(namespace, collection)

    def private_range(self, namespace: str, collection: str, start: str, end: str) -> RangeIterator:
        """The rows of a range of private keys."""
        raise _not_kept(namespace, collection)

    def private_query(self, namespace: str, collection: str, query: str) -> RangeIterator:
        """The private rows that match a Mango query."""
        raise _not_kept(namespace, collection)

    def get_private_metadata(self, namespace: str, collection: str, key: str) -> dict[str, bytes]:
        """The metadata of a private key."""
        raise _not_kept(namespace, collection)

    def put_private_metadata(
        self, namespace: str, collection: str, key: str, entries: Mapping[str, bytes]
    ) -> None:
        """Replace the metadata of a private key."""
        raise _not_kept(namespace, collection)


def _not_kept(namespace: str, collection: str) -> NotKept:
    return NotKept(
        f"Private data is not kept by this ledger: the chaincode {namespace!r} cannot use its "
        f"collection {quoted(collection)} here; keep what others may see under ordinary keys."
    )
