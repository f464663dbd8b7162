"""What holds for every chaincode stream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Bounds and switches of a stream and its transactions.

    Attributes:
        keepalive: seconds of silence before a KEEPALIVE message; 0 for none.
        register_timeout: seconds a new stream may take to send REGISTER.
        execute_timeout: seconds a transaction may take.
        max_transactions: transactions at a time on one stream.
        max_queries: open queries of one transaction.
        max_page_rows: rows of a page, whatever the chaincode asks for.
        max_pending: bytes that may wait to be read when a transaction is sent: less than what ends
            the stream, so that answers to running transactions still have room.
        max_write_batch: records of one WRITE_BATCH_STATE; 0 does not offer it.
        max_multiple_keys: keys of one GET_STATE_MULTIPLE; 0 does not offer it.
        check_certificate_name: whether a client certificate must be a chaincode's, of the name in
            REGISTER.
        certificate_optional: whether a chaincode may do without one.
    """

    keepalive: float
    register_timeout: float
    execute_timeout: float
    max_transactions: int
    max_queries: int
    max_page_rows: int
    max_pending: int
    max_write_batch: int
    max_multiple_keys: int
    check_certificate_name: bool
    certificate_optional: bool
