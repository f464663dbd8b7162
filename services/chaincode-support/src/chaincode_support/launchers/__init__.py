"""How a chaincode comes to be there: others start it, the peer starts it, or the peer dials it."""
