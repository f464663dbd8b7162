"""The channel's configuration: block 0, as Fabric's tools would write it, and how to read one.

Follows Fabric 2.5's internal/configtxgen/encoder/encoder.go, common/genesis/genesis.go and
sampleconfig/configtx.yaml. The policies are those of Fabric's sample networks with NodeOUs.

The consensus type is "solo". It says what is true, one orderer and no cluster, and every SDK takes
it: clients decode the type's name and use none of it, while "etcdraft" would promise a metadata
message with the consenters' addresses and TLS certificates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from selvedge_common.msp import ADMIN, CLIENT, MEMBER, MSP, PEER, MSPConfigurationError, Role
from selvedge_common.msp.policies import (
    PolicyGroup,
    SignedData,
    evaluate_path,
    implicit_meta_policy,
    signature_policy,
    signed_by_role,
)
from selvedge_common.protoutil.blocks import new_block
from selvedge_common.protoutil.errors import MalformedBlock, MalformedMessage
from selvedge_common.protoutil.metadata import set_metadata
from selvedge_common.protoutil.transactions import open_transaction
from selvedge_common.protoutil.wire import (
    marshal,
    new_nonce,
    parse,
    timestamp_of,
    transaction_id,
)
from selvedge_protos.common import (
    common_pb2,
    configtx_pb2,
    configuration_pb2,
    policies_pb2,
)
from selvedge_protos.msp import identities_pb2, msp_config_pb2
from selvedge_protos.orderer import configuration_pb2 as orderer_pb2

_M = TypeVar("_M", bound=Message)

ADMINS = "Admins"
READERS = "Readers"
WRITERS = "Writers"
ENDORSEMENT = "Endorsement"
CAPABILITY = "V2_0"
BFT_CAPABILITY = "V3_0"
CONSORTIUM = "SampleConsortium"

_ANY = policies_pb2.ImplicitMetaPolicy.ANY
_MAJORITY = policies_pb2.ImplicitMetaPolicy.MAJORITY
_ORDERER_ADMINS = "/Channel/Orderer/Admins"
_USUAL = {
    READERS: implicit_meta_policy(_ANY, READERS),
    WRITERS: implicit_meta_policy(_ANY, WRITERS),
    ADMINS: implicit_meta_policy(_MAJORITY, ADMINS),
}


@dataclass(frozen=True)
class Batch:
    """How an orderer cuts blocks: after so many messages or bytes, or so long (like "2s")."""

    max_message_count: int
    absolute_max_bytes: int
    preferred_max_bytes: int
    timeout: str


@dataclass(frozen=True)
class ChannelConfig:
    """What a configuration block says.

    Attributes:
        channel: the channel's name.
        sequence: how often the configuration was changed.
        config: the whole of it.
        msps: the organisations, by MSP id.
        policies: the policies, as a tree from /Channel down.
        orderer_addresses: where to submit, as host:port.
        batch: how blocks are cut.
        consenters: the serialized identities of who signs blocks by a number, on a BFT channel.
    """

    channel: str
    sequence: int
    config: configtx_pb2.Config
    msps: Mapping[str, MSP]
    policies: PolicyGroup
    orderer_addresses: Sequence[str]
    batch: Batch
    consenters: Mapping[int, bytes]

    def evaluate(self, path: str, signed_data: Iterable[SignedData]) -> None:
        """Return when the signatures satisfy the policy at `path`, like /Channel/Readers.

        Raises msp.PolicyError, with why signatures did not count.
        """
        evaluate_path(self.policies, path, signed_data, self.msps)


def genesis_block(
    channel: str,
    orgs: Sequence[msp_config_pb2.MSPConfig],
    orderer_addresses: Sequence[str],
    batch: Batch,
    *,
    orderer_orgs: Sequence[msp_config_pb2.MSPConfig] | None = None,
) -> common_pb2.Block:
    """Make block 0 of a channel; it is not signed, as no genesis block is.

    Args:
        channel: the channel's name.
        orgs: the organisations whose members use the channel (`MSP.config()`).
        orderer_addresses: where to submit, as host:port.
        batch: how blocks will be cut.
        orderer_orgs: the organisations that order; by default those of `orgs`.
    """
    group = _group(
        policies=_USUAL,
        values={
            "HashingAlgorithm": configuration_pb2.HashingAlgorithm(name="SHA256"),
            "BlockDataHashingStructure": configuration_pb2.BlockDataHashingStructure(
                width=2**32 - 1
            ),
            "Consortium": configuration_pb2.Consortium(name=CONSORTIUM),
            "Capabilities": _capabilities(),
        },
        groups={
            "Orderer": _orderer(
                orgs if orderer_orgs is None else orderer_orgs, orderer_addresses, batch
            ),
            "Application": _application(orgs),
        },
    )
    group.values["OrdererAddresses"].CopyFrom(
        configtx_pb2.ConfigValue(
            value=marshal(configuration_pb2.OrdererAddresses(addresses=orderer_addresses)),
            mod_policy=_ORDERER_ADMINS,
        )
    )
    envelope = _config_envelope(channel, configtx_pb2.Config(channel_group=group))
    block = new_block(0, b"", [marshal(envelope)])
    last_config = common_pb2.LastConfig(index=0)
    ordered = common_pb2.OrdererBlockMetadata(last_config=last_config)
    for index, value in (
        (common_pb2.SIGNATURES, marshal(ordered)),
        (common_pb2.LAST_CONFIG, marshal(last_config)),
    ):
        set_metadata(block, index, marshal(common_pb2.Metadata(value=value)))
    return block


def is_config_block(block: common_pb2.Block) -> bool:
    """Tell whether the block's one transaction is a configuration, sound or not."""
    if len(block.data.data) != 1:
        return False
    try:
        envelope = parse(common_pb2.Envelope, block.data.data[0], "envelope")
        header = parse(common_pb2.Payload, envelope.payload, "payload").header
        return (
            parse(common_pb2.ChannelHeader, header.channel_header, "channel header").type
            == common_pb2.CONFIG
        )
    except MalformedMessage:
        return False


def open_config(block: common_pb2.Block) -> ChannelConfig:
    """Read a configuration block. Raises MalformedBlock."""
    number = block.header.number
    if len(block.data.data) != 1:
        raise MalformedBlock(
            f"Block {number} has {len(block.data.data)} transactions:"
            " a configuration block has one."
        )
    try:
        transaction = open_transaction(block.data.data[0])
        if transaction.channel_header.type != common_pb2.CONFIG:
            raise MalformedBlock(
                f"Block {number} is not a configuration block: fetch the one that"
                " its metadata names as the last."
            )
        config = parse(
            configtx_pb2.ConfigEnvelope, transaction.data, f"configuration in block {number}"
        ).config
        return _open(transaction.channel, config)
    except MalformedBlock:
        raise
    except (MalformedMessage, MSPConfigurationError) as error:
        raise MalformedBlock(f"Block {number} holds no usable configuration: {error}") from error


def _open(channel: str, config: configtx_pb2.Config) -> ChannelConfig:
    root = config.channel_group
    orderer = root.groups["Orderer"] if "Orderer" in root.groups else configtx_pb2.ConfigGroup()
    size = _value(orderer, "BatchSize", orderer_pb2.BatchSize)
    return ChannelConfig(
        channel=channel,
        sequence=config.sequence,
        config=config,
        msps=_msps(root),
        policies=_policies(root),
        orderer_addresses=_orderer_addresses(root, orderer),
        batch=Batch(
            size.max_message_count,
            size.absolute_max_bytes,
            size.preferred_max_bytes,
            _value(orderer, "BatchTimeout", orderer_pb2.BatchTimeout).timeout,
        ),
        consenters=_consenters(root, orderer),
    )


def _config_envelope(channel: str, config: configtx_pb2.Config) -> common_pb2.Envelope:
    nonce = new_nonce()
    channel_header = common_pb2.ChannelHeader(
        type=common_pb2.CONFIG,
        version=1,
        timestamp=timestamp_of(),
        channel_id=channel,
        tx_id=transaction_id(nonce, b""),
    )
    payload = common_pb2.Payload(
        header=common_pb2.Header(
            channel_header=marshal(channel_header),
            signature_header=marshal(common_pb2.SignatureHeader(nonce=nonce)),
        ),
        data=marshal(configtx_pb2.ConfigEnvelope(config=config)),
    )
    return common_pb2.Envelope(payload=marshal(payload))


def _orderer(
    orgs: Sequence[msp_config_pb2.MSPConfig], addresses: Sequence[str], batch: Batch
) -> configtx_pb2.ConfigGroup:
    size = orderer_pb2.BatchSize(
        max_message_count=batch.max_message_count,
        absolute_max_bytes=batch.absolute_max_bytes,
        preferred_max_bytes=batch.preferred_max_bytes,
    )
    endpoints = configuration_pb2.OrdererAddresses(addresses=addresses)
    return _group(
        policies={**_USUAL, "BlockValidation": implicit_meta_policy(_ANY, WRITERS)},
        values={
            "ConsensusType": orderer_pb2.ConsensusType(type="solo"),
            "BatchSize": size,
            "BatchTimeout": orderer_pb2.BatchTimeout(timeout=batch.timeout),
            "ChannelRestrictions": orderer_pb2.ChannelRestrictions(),
            "Capabilities": _capabilities(),
        },
        groups={
            _name(org): _org(org, {WRITERS: (MEMBER,)}, {"Endpoints": endpoints}) for org in orgs
        },
    )


def _application(orgs: Sequence[msp_config_pb2.MSPConfig]) -> configtx_pb2.ConfigGroup:
    endorsement = implicit_meta_policy(_MAJORITY, ENDORSEMENT)
    return _group(
        policies={**_USUAL, ENDORSEMENT: endorsement, "LifecycleEndorsement": endorsement},
        values={"Capabilities": _capabilities()},
        groups={
            _name(org): _org(org, {WRITERS: (ADMIN, CLIENT), ENDORSEMENT: (PEER,)}, {})
            for org in orgs
        },
    )


def _org(
    msp: msp_config_pb2.MSPConfig,
    roles: Mapping[str, Sequence[Role]],
    values: Mapping[str, Message],
) -> configtx_pb2.ConfigGroup:
    name = _name(msp)
    every = {READERS: (MEMBER,), ADMINS: (ADMIN,), **roles}
    return _group(
        policies={
            policy: signature_policy(signed_by_role([name], wanted))
            for policy, wanted in every.items()
        },
        values={"MSP": msp, **values},
        groups={},
    )


def _group(
    policies: Mapping[str, policies_pb2.Policy],
    values: Mapping[str, Message],
    groups: Mapping[str, configtx_pb2.ConfigGroup],
) -> configtx_pb2.ConfigGroup:
    """Make a group whose every element may be changed by the group's administrators."""
    group = configtx_pb2.ConfigGroup(mod_policy=ADMINS)
    for name, policy in policies.items():
        group.policies[name].CopyFrom(configtx_pb2.ConfigPolicy(policy=policy, mod_policy=ADMINS))
    for name, value in values.items():
        group.values[name].CopyFrom(
            configtx_pb2.ConfigValue(value=marshal(value), mod_policy=ADMINS)
        )
    for name, inner in groups.items():
        group.groups[name].CopyFrom(inner)
    return group


def _capabilities() -> configuration_pb2.Capabilities:
    return configuration_pb2.Capabilities(capabilities={CAPABILITY: configuration_pb2.Capability()})


def _name(msp: msp_config_pb2.MSPConfig) -> str:
    return parse(msp_config_pb2.FabricMSPConfig, msp.config, "MSP of an organisation").name


def _value(group: configtx_pb2.ConfigGroup, name: str, kind: type[_M]) -> _M:
    value = group.values[name].value if name in group.values else b""
    return parse(kind, value, f"value {name} of the configuration")


def _msps(root: configtx_pb2.ConfigGroup) -> dict[str, MSP]:
    configs: dict[str, msp_config_pb2.MSPConfig] = {}
    for config in _msp_configs(root):
        name = _name(config)
        if configs.setdefault(name, config) != config:
            raise MalformedMessage(
                f"The MSP {name!r} is described twice and differently: describe it once."
            )
    return {name: MSP.from_config(config) for name, config in configs.items()}


def _msp_configs(group: configtx_pb2.ConfigGroup) -> Iterable[msp_config_pb2.MSPConfig]:
    if "MSP" in group.values:
        msp = _value(group, "MSP", msp_config_pb2.MSPConfig)
        # Other types (Idemix) have no certificates: their members are of an unknown organisation.
        if msp.type == 0:
            yield msp
    for inner in group.groups.values():
        yield from _msp_configs(inner)


def _orderer_addresses(
    root: configtx_pb2.ConfigGroup, orderer: configtx_pb2.ConfigGroup
) -> tuple[str, ...]:
    """Give the channel's own addresses, then those that only its ordering organisations name."""
    kind = configuration_pb2.OrdererAddresses
    addresses = list(_value(root, "OrdererAddresses", kind).addresses)
    for org in orderer.groups.values():
        addresses += _value(org, "Endpoints", kind).addresses
    return tuple(dict.fromkeys(addresses))


def _consenters(
    root: configtx_pb2.ConfigGroup, orderer: configtx_pb2.ConfigGroup
) -> dict[int, bytes]:
    """Give the consenters' identities where the channel's capabilities allow BFT, as in Fabric."""
    capabilities = _value(root, "Capabilities", configuration_pb2.Capabilities).capabilities
    if BFT_CAPABILITY not in capabilities:
        return {}
    return {
        consenter.id: marshal(
            identities_pb2.SerializedIdentity(mspid=consenter.msp_id, id_bytes=consenter.identity)
        )
        for consenter in _value(orderer, "Orderers", configuration_pb2.Orderers).consenter_mapping
    }


def _policies(group: configtx_pb2.ConfigGroup) -> PolicyGroup:
    return PolicyGroup(
        {name: policy.policy for name, policy in group.policies.items()},
        {name: _policies(inner) for name, inner in group.groups.items()},
    )
