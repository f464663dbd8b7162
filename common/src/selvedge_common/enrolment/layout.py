"""Which certificates a holder has, and their files: Fabric's MSP folders, and ours for TLS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# Fabric's `peer` and its SDKs read roles from this file (msp/configbuilder.go).
_UNITS = {"ClientOU": "client", "PeerOU": "peer", "AdminOU": "admin", "OrdererOU": "orderer"}
NODE_UNITS = "NodeOUs:\n  Enable: true\n" + "".join(
    f"  {role}Identifier:\n"
    f"    Certificate: cacerts/ca.pem\n"
    f"    OrganizationalUnitIdentifier: {unit}\n"
    for role, unit in _UNITS.items()
)


@dataclass(frozen=True)
class Credential:
    """One certificate of a holder; files are relative to the holder's folder.

    Attributes:
        profile: the profile's name at the ca.
        certificate: the certificate's file.
        key: the private key's file, mode 0600.
        root: the file of the root that signed.
        tls_root: one more file for the TLS root, where it is not the one that signed.
        node_units: the file that tells Fabric's tools how roles are recognised.
        encoded: whether base64 forms lie beside certificate and key, as Node and Go shims want
            them.
        names_uri: a SAN URI that the certificate must hold.
    """

    profile: str
    certificate: str
    key: str
    root: str
    tls_root: str | None = None
    node_units: str | None = None
    encoded: bool = False
    names_uri: str | None = None


def _tls(profile: str, stem: str) -> Credential:
    return Credential(profile, f"tls/{stem}.crt", f"tls/{stem}.key", "tls/ca.crt")


def _msp(profile: str, folder: str) -> Credential:
    return Credential(
        profile,
        certificate=f"{folder}/signcerts/cert.pem",
        key=f"{folder}/keystore/key.pem",
        root=f"{folder}/cacerts/ca.pem",
        tls_root=f"{folder}/tlscacerts/tlsca.pem",
        node_units=f"{folder}/config.yaml",
    )


def service(identities: Sequence[str]) -> list[Credential]:
    """A service's: `tls/` for listening and dialling, `msp/` for its peer identity, `orderer-msp/`.

    Args:
        identities: `peer` and `orderer`, whichever it has.
    """
    folders = {"peer": "msp", "orderer": "orderer-msp"}
    listener, dialler = _tls("tls-server", "server"), _tls("tls-client", "client")
    return [listener, dialler, *(_msp(identity, folders[identity]) for identity in identities)]


def user(profile: str) -> list[Credential]:
    """A user's: `msp/` in Fabric's layout and `tls/`; the profile is `user` or `admin`."""
    return [_msp(profile, "msp"), _tls("tls-client", "client")]


def chaincode(name: str) -> list[Credential]:
    """A chaincode's: `client.crt`, `client.key`, `ca.crt`, base64 forms, in the folder itself."""
    return [
        Credential(
            "chaincode",
            "client.crt",
            "client.key",
            "ca.crt",
            encoded=True,
            names_uri=f"selvedge://chaincode/{name}",
        )
    ]


def producer(name: str) -> list[Credential]:
    """A producer's: `client.crt`, `client.key` and `ca.crt`, in the folder itself."""
    uri = f"selvedge://producer/{name}"
    return [Credential("producer", "client.crt", "client.key", "ca.crt", names_uri=uri)]
