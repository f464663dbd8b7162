"""What an MSP is made of, as a folder, as a channel configuration, and back.

The folder is in Fabric's layout (msp/configbuilder.go); the configuration is a FabricMSPConfig.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from google.protobuf.message import DecodeError

from selvedge_common.msp.certificates import (
    check_extensions,
    may_sign_certificates,
    pem_of,
    read_certificates,
    subject_key_identifier,
    subject_of,
)
from selvedge_common.msp.errors import MSPConfigurationError, NotACertificate, UnfitCertificate
from selvedge_common.msp.roles import NodeOU, NodeOUs
from selvedge_protos.msp import msp_config_pb2

_ROLES = ("client", "peer", "admin", "orderer")


@dataclass(frozen=True)
class Material:
    """The certificates and rules of an organisation; see `MSP` for what each is for."""

    mspid: str
    root_certificates: Sequence[x509.Certificate]
    intermediate: Sequence[x509.Certificate] = ()
    tls_root_certificates: Sequence[x509.Certificate] = ()
    tls_intermediate: Sequence[x509.Certificate] = ()
    admins: Sequence[x509.Certificate] = ()
    revocation_lists: Sequence[bytes] = ()
    required_units: Sequence[NodeOU] = ()
    node_ous: NodeOUs | None = field(default_factory=NodeOUs)

    def check(self) -> None:
        """Return when the authorities are such. Raises MSPConfigurationError."""
        if not self.mspid or not self.root_certificates:
            raise MSPConfigurationError(
                f"The MSP {self.mspid!r} needs an id and at least one root certificate:"
                " give it the organisation's CA certificate."
            )
        for authority in (*self.root_certificates, *self.intermediate):
            _check_authority(self.mspid, authority)


def read_folder(folder: Path, mspid: str) -> Material:
    """Read an MSP folder. Raises MSPConfigurationError naming the file."""
    roots = _read_files(folder / "cacerts")
    if not roots:
        raise MSPConfigurationError(
            f"{folder / 'cacerts'} holds no certificate: enrol, or point to another MSP folder."
        )
    return Material(
        mspid,
        roots,
        intermediate=_read_files(folder / "intermediatecerts"),
        tls_root_certificates=_read_files(folder / "tlscacerts"),
        tls_intermediate=_read_files(folder / "tlsintermediatecerts"),
        admins=_read_files(folder / "admincerts"),
        revocation_lists=[_read(path) for path in _files(folder / "crls")],
    )


def read_config(config: msp_config_pb2.MSPConfig) -> Material:
    """Read what a channel configuration says of an MSP. Raises MSPConfigurationError."""
    if config.type != 0:
        raise MSPConfigurationError(
            f"The channel configuration has an MSP of type {config.type}:"
            " only type 0 (X.509 certificates) is known here."
        )
    try:
        fabric = msp_config_pb2.FabricMSPConfig.FromString(config.config)
    except DecodeError as error:
        raise MSPConfigurationError(
            "The channel configuration holds an MSP that is not a FabricMSPConfig:"
            " take the configuration from an intact block."
        ) from error
    try:
        return Material(
            fabric.name,
            _read_all(fabric.root_certs),
            intermediate=_read_all(fabric.intermediate_certs),
            tls_root_certificates=_read_all(fabric.tls_root_certs),
            tls_intermediate=_read_all(fabric.tls_intermediate_certs),
            admins=_read_all(fabric.admins),
            revocation_lists=tuple(fabric.revocation_list),
            required_units=[_unit(unit) for unit in fabric.organizational_unit_identifiers],
            node_ous=_node_ous(fabric.fabric_node_ous),
        )
    except NotACertificate as error:
        raise MSPConfigurationError(f"The MSP {fabric.name!r} cannot be used: {error}") from error


def write_config(material: Material) -> msp_config_pb2.MSPConfig:
    """Give the material as a channel configuration carries it."""
    fabric = msp_config_pb2.FabricMSPConfig(
        name=material.mspid,
        root_certs=map(pem_of, material.root_certificates),
        intermediate_certs=map(pem_of, material.intermediate),
        admins=map(pem_of, material.admins),
        revocation_list=material.revocation_lists,
        organizational_unit_identifiers=map(_identifier, material.required_units),
        crypto_config=msp_config_pb2.FabricCryptoConfig(
            signature_hash_family="SHA2", identity_identifier_hash_function="SHA256"
        ),
        tls_root_certs=map(pem_of, material.tls_root_certificates),
        tls_intermediate_certs=map(pem_of, material.tls_intermediate),
    )
    if material.node_ous is not None:
        fabric.fabric_node_ous.enable = True
        for role in _ROLES:
            unit: NodeOU | None = getattr(material.node_ous, role)
            if unit is not None:
                identifier = getattr(fabric.fabric_node_ous, f"{role}_ou_identifier")
                identifier.CopyFrom(_identifier(unit))
    return msp_config_pb2.MSPConfig(type=0, config=fabric.SerializeToString())


def _check_authority(mspid: str, certificate: x509.Certificate) -> None:
    try:
        check_extensions(certificate)
        if not may_sign_certificates(certificate):
            raise UnfitCertificate(
                f"The certificate of {subject_of(certificate)} is not one of a CA that may sign."
            )
        if subject_key_identifier(certificate) is None:
            raise UnfitCertificate(
                f"The CA certificate of {subject_of(certificate)} has no subject key identifier."
            )
    except UnfitCertificate as error:
        raise MSPConfigurationError(
            f"The MSP {mspid!r} was given a certificate that cannot be an authority: {error}"
        ) from error


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MSPConfigurationError(f"{path} cannot be read: {error}") from error


def _read_files(folder: Path) -> list[x509.Certificate]:
    certificates: list[x509.Certificate] = []
    for path in _files(folder):
        try:
            certificates += read_certificates(_read(path))
        except NotACertificate as error:
            raise MSPConfigurationError(f"{path} cannot be used: {error}") from error
    return certificates


def _read_all(pems: Iterable[bytes]) -> list[x509.Certificate]:
    return [certificate for pem in pems for certificate in read_certificates(pem)]


def _node_ous(config: msp_config_pb2.FabricNodeOUs) -> NodeOUs | None:
    if not config.enable:
        return None

    def unit(identifier: msp_config_pb2.FabricOUIdentifier) -> NodeOU | None:
        return _unit(identifier) if identifier.organizational_unit_identifier else None

    return NodeOUs(
        client=unit(config.client_ou_identifier),
        peer=unit(config.peer_ou_identifier),
        admin=unit(config.admin_ou_identifier),
        orderer=unit(config.orderer_ou_identifier),
    )


def _unit(identifier: msp_config_pb2.FabricOUIdentifier) -> NodeOU:
    read_certificates(identifier.certificate)  # refuses here what would fail at every identity
    return NodeOU(identifier.organizational_unit_identifier, identifier.certificate)


def _identifier(unit: NodeOU) -> msp_config_pb2.FabricOUIdentifier:
    return msp_config_pb2.FabricOUIdentifier(
        certificate=unit.issuer, organizational_unit_identifier=unit.name
    )
