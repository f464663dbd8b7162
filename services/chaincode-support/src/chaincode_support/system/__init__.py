"""System chaincodes: parts of the peer that are called like a chaincode."""
