"""The peer's chaincode side: chaincode streams, endorser, ledger, ordering and Deliver."""
