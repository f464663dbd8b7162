"""The channels that system chaincodes tell of, to those who may read them."""

from __future__ import annotations

from collections.abc import Mapping

from chaincode_support.channel import Channel
from chaincode_support.system.executor import Call, Refused
from selvedge_common.msp import IdentityError, PolicyNotSatisfied
from selvedge_common.protoutil.config_block import READERS
from selvedge_common.quoting import quoted


class ReadableChannels:
    """The peer's channels, each for the readers that its configuration names."""

    def __init__(self, channels: Mapping[str, Channel]) -> None:
        self._channels = channels

    def names(self) -> list[str]:
        """All of them, in alphabetical order."""
        return sorted(self._channels)

    def channel(self, call: Call) -> Channel:
        """The channel that the call's first argument names. Raises Refused."""
        if not call.args:
            raise Refused("the call names no channel: give it as the first argument")
        name = call.args[0].decode(errors="replace")
        channel = self._channels.get(name)
        if channel is None:
            raise Refused(
                f"channel {quoted(name)} is unknown: this peer has {', '.join(self.names())}"
            )
        try:
            channel.require(READERS, channel.identify(call.creator))
        except (IdentityError, PolicyNotSatisfied) as error:
            raise Refused(f"access denied for channel {name}: {error}") from error
        return channel
