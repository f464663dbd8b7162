"""The names of chaincode messages' types."""

from __future__ import annotations

from selvedge_protos.peer.chaincode_shim_pb2 import ChaincodeMessage


def name_of(kind: int) -> str:
    """The type's name, also of a number that no release knows."""
    descriptor = ChaincodeMessage.Type.DESCRIPTOR.values_by_number.get(kind)
    return descriptor.name if descriptor else f"unknown type {kind}"
