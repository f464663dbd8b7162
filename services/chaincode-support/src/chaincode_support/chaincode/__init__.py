"""The server of `protos.ChaincodeSupport/Register`: chaincode dials in and asks for state."""
