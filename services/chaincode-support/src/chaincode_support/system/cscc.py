"""`cscc`: tells of the peer's channels and their configuration.

Follows core/scc/cscc/configure.go of Fabric 2.5. Joining is not there: the channels are those of
the peer's settings.
"""

from __future__ import annotations

from collections.abc import Mapping

from chaincode_support.system.channels import ReadableChannels
from chaincode_support.system.executor import Call, Function, Refused
from selvedge_common.msp import MSP, IdentityError
from selvedge_protos.peer.query_pb2 import ChannelInfo, ChannelQueryResponse

# The channel's configuration never changes.
_CONFIG_BLOCK = 0


class Cscc:
    """Configuration system chaincode."""

    name = "cscc"
    callable_by_chaincode = False

    def __init__(self, channels: ReadableChannels, organisation: MSP) -> None:
        """`organisation`: whose members may ask which channels there are."""
        self._channels = channels
        self._organisation = organisation
        self.functions: Mapping[str, Function] = {
            "GetChannels": self._get_channels,
            "GetConfigBlock": self._get_config_block,
        }

    def _get_channels(self, call: Call) -> bytes:
        try:
            self._organisation.validate(self._organisation.deserialize(call.creator))
        except IdentityError as error:
            raise Refused(f"access denied: {error}") from error
        return ChannelQueryResponse(
            channels=[ChannelInfo(channel_id=name) for name in self._channels.names()]
        ).SerializeToString()

    def _get_config_block(self, call: Call) -> bytes:
        return self._channels.channel(call).ledger.block(_CONFIG_BLOCK)
