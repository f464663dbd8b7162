"""Membership: chains, time, roles, configuration."""

import contextlib
import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.msp import (
    ADMIN,
    CLIENT,
    MEMBER,
    MSP,
    ORDERER,
    PEER,
    IdentityExpired,
    IdentityNotYetValid,
    IdentityRevoked,
    MalformedIdentity,
    MalformedPolicy,
    MSPConfigurationError,
    NodeOU,
    UnfitCertificate,
    UnknownMSP,
    UntrustedIdentity,
    identify,
    parse_identity,
    serialize,
)
from selvedge_common.msp.identity import MAX_IDENTITY_BYTES, parse_serialized
from selvedge_protos.msp import msp_config_pb2, msp_principal_pb2

DAY = timedelta(days=1)
MSPPrincipal = msp_principal_pb2.MSPPrincipal


@pytest.mark.parametrize(
    ("unit", "role"), [("client", CLIENT), ("peer", PEER), ("admin", ADMIN), ("orderer", ORDERER)]
)
def test_a_role_is_told_by_the_ou(org1: Any, unit: str, role: Any) -> None:
    identity = identify(org1.issue("someone", "blue", unit).serialized, {"Org1MSP": org1.msp})
    assert {
        kind for kind in (CLIENT, PEER, ADMIN, ORDERER) if org1.msp.has_role(identity, kind)
    } == {role}
    assert org1.msp.has_role(identity, MEMBER)


@pytest.mark.parametrize(("units", "what"), [((), "no OU"), (("client", "admin"), "more than one")])
def test_an_identity_has_exactly_one_role(org1: Any, units: tuple[str, ...], what: str) -> None:
    identity = org1.issue("someone", *units)
    with pytest.raises(UnfitCertificate, match=what):
        org1.msp.validate(identity)
    assert not org1.msp.has_role(identity, MEMBER)


def test_an_expired_certificate_is_a_distinct_error(org1: Any) -> None:
    now = datetime.now(UTC)
    identity = org1.issue("late", "client", start=now - 2 * DAY, end=now - DAY / 2)
    with pytest.raises(IdentityExpired, match="expired at"):
        org1.msp.validate(identity)
    org1.msp.validate(identity, at=now - DAY * 0.75)
    with pytest.raises(IdentityExpired):
        org1.msp.validate(identity)


def test_a_role_does_not_end_with_the_certificate(org1: Any, make_organisation: Any) -> None:
    now = datetime.now(UTC)
    late = org1.issue("late", "peer", start=now - 2 * DAY, end=now - DAY)
    early = org1.issue("early", "peer", start=now + DAY / 4)
    assert all(org1.msp.has_role(identity, PEER) for identity in (late, early))
    assert not org1.msp.has_role(late, ADMIN)
    impostor = make_organisation("Org1MSP").issue("peer0", "peer")
    assert not org1.msp.has_role(impostor, PEER)


def test_a_remembered_identity_still_expires(org1: Any, client: Any) -> None:
    org1.msp.validate(client)
    org1.msp.validate(client, at=client.expires_at)
    with pytest.raises(IdentityExpired):
        org1.msp.validate(client, at=client.expires_at + timedelta(seconds=1))


def test_a_certificate_from_the_future_is_a_distinct_error(org1: Any) -> None:
    now = datetime.now(UTC)
    identity = org1.issue("early", "client", start=now + DAY / 4)
    with pytest.raises(IdentityNotYetValid, match="clocks"):
        org1.msp.validate(identity)


def test_an_expired_root_ends_its_members(org1: Any, client: Any) -> None:
    after_the_root = org1.root.certificate.not_valid_after_utc + timedelta(seconds=1)
    longer = org1.issue("longer", "client", end=after_the_root + DAY)
    org1.msp.validate(longer)
    with pytest.raises(IdentityExpired, match="or one that issued it"):
        org1.msp.validate(longer, at=after_the_root)


def test_a_foreign_root_of_the_same_name_is_refused(org1: Any, make_organisation: Any) -> None:
    impostor = make_organisation("Org1MSP").issue("peer0", "peer")
    with pytest.raises(UntrustedIdentity, match="no chain of signatures"):
        identify(impostor.serialized, {"Org1MSP": org1.msp})


def test_an_unknown_msp_id_names_the_known_ones(org1: Any, org2: Any) -> None:
    identity = org2.issue("peer0", "peer")
    with pytest.raises(UnknownMSP, match=r"'Org2MSP', which is not known here \(known: Org1MSP\)"):
        identify(identity.serialized, {"Org1MSP": org1.msp})
    with pytest.raises(UnknownMSP):
        org1.msp.deserialize(identity.serialized)
    with pytest.raises(UnknownMSP):
        org1.msp.validate(identity)


def test_a_long_identity_is_refused_unread(org1: Any) -> None:
    long = org1.issue("someone", "client").serialized + b"\x12\x00" * MAX_IDENTITY_BYTES
    for read in (org1.msp.deserialize, parse_identity, parse_serialized):
        with pytest.raises(MalformedIdentity, match=f"more than the {MAX_IDENTITY_BYTES} that"):
            read(long)


def test_a_ca_is_no_identity(org1: Any) -> None:
    authority = org1.issue("ca", "client", extensions=[(x509.BasicConstraints(True, None), True)])
    with pytest.raises(UnfitCertificate, match="is a CA's"):
        org1.msp.validate(authority)


def test_an_end_entity_cannot_issue(org1: Any) -> None:
    for fault in ({"is_ca": False}, {"may_sign": False}):
        between = org1.root.__class__("between", org1.root, **fault)
        identity = org1.issue("someone", "client", by=between)
        msp = MSP("Org1MSP", [org1.root.certificate])
        with pytest.raises(UntrustedIdentity):
            msp.validate(identity)
        with pytest.raises(MSPConfigurationError, match="may sign"):
            MSP("Org1MSP", [org1.root.certificate], intermediate=[between.certificate])


def test_a_chain_may_pass_through_intermediates_as_far_as_path_lengths_allow(org1: Any) -> None:
    authority = org1.root.__class__
    root = authority("root", path_length=1)
    upper = authority("upper", root)
    lower = authority("lower", upper)
    one, two = (org1.issue("someone", "client", by=by) for by in (upper, lower))
    msp = MSP("Org1MSP", [root.certificate], intermediate=[lower.certificate, upper.certificate])
    msp.validate(one)
    with pytest.raises(UntrustedIdentity):
        msp.validate(two)
    with pytest.raises(UntrustedIdentity):
        MSP("Org1MSP", [root.certificate]).validate(one)


def test_authorities_that_certify_each_other_make_no_endless_chain(org1: Any) -> None:
    authority = org1.root.__class__
    one = authority("one")
    two = authority("two", one)
    public = [(x509.BasicConstraints(True, None), True)]
    public.append((x509.SubjectKeyIdentifier.from_public_key(one.key.public_key()), False))  # type: ignore[arg-type]
    crossed = two.certify(one.name, one.key.public_key(), public)
    msp = MSP("Org1MSP", [org1.root.certificate], intermediate=[two.certificate, crossed])
    with pytest.raises(UntrustedIdentity):
        msp.validate(org1.issue("someone", "client", by=one))


def test_a_wrong_authority_key_identifier_is_refused(org1: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    other = x509.AuthorityKeyIdentifier(b"x" * 20, None, None)
    certificate = org1.root.certify(
        org1.issue("someone", "client").certificate.subject, key.public_key(), [(other, False)]
    )
    identity = parse_identity(serialize("Org1MSP", certificate))
    with pytest.raises(UntrustedIdentity):
        org1.msp.validate(identity)


def test_an_unknown_critical_extension_is_refused(org1: Any) -> None:
    strange = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4.5"), b"\x05\x00")
    with pytest.raises(UnfitCertificate, match=r"critical extension 1\.2\.3\.4\.5"):
        org1.issue("someone", "client", extensions=[(strange, True)])
    org1.msp.validate(org1.issue("someone", "client", extensions=[(strange, False)]))


def test_a_revoked_certificate_is_refused_by_the_list_of_its_own_ca(org1: Any, org2: Any) -> None:
    identity = org1.issue("gone", "client")
    lists = [revocation_list(org.root, identity) for org in (org1, org2)]
    by_stranger = MSP("Org1MSP", [org1.root.certificate], revocation_lists=lists[1:])
    by_stranger.validate(identity)
    revoking = MSP("Org1MSP", [org1.root.certificate], revocation_lists=lists)
    with pytest.raises(IdentityRevoked, match="revoked"):
        revoking.validate(identity)
    with pytest.raises(IdentityRevoked):
        MSP.from_config(revoking.config()).validate(identity)
    revoking.validate(org1.issue("other", "client"))


def test_only_valid_identities_are_remembered_and_no_more_than_allowed(
    org1: Any, make_organisation: Any
) -> None:
    msp = MSP("Org1MSP", [org1.root.certificate], cached_identities=2)
    members = [org1.issue(f"member{number}", "client").serialized for number in range(3)]
    first = [identify(member, {"Org1MSP": msp}) for member in members]
    again = [msp.deserialize(member) for member in members]
    assert [one is other for one, other in zip(first, again, strict=True)] == [False, True, True]
    stranger = make_organisation("Org1MSP").issue("stranger", "client")
    for _ in range(3):
        with pytest.raises(UntrustedIdentity):
            identify(stranger.serialized, {"Org1MSP": msp})
    assert msp.deserialize(members[1]) is first[1]


def test_principals(org1: Any, org2: Any, client: Any) -> None:
    def principal(kind: Any, message: Any) -> Any:
        data = message if isinstance(message, bytes) else message.SerializeToString()
        return MSPPrincipal(principal_classification=kind, principal=data)

    def role(mspid: str, kind: Any) -> Any:
        wanted = msp_principal_pb2.MSPRole(msp_identifier=mspid, role=kind)
        return principal(MSPPrincipal.ROLE, wanted)

    certifiers = hashlib.sha256(org1.root.certificate.public_bytes(Encoding.DER)).digest()

    def unit(name: str, certifiers: bytes = certifiers) -> Any:
        wanted = msp_principal_pb2.OrganizationUnit(
            msp_identifier="Org1MSP",
            organizational_unit_identifier=name,
            certifiers_identifier=certifiers,
        )
        return principal(MSPPrincipal.ORGANIZATION_UNIT, wanted)

    def combined(*parts: Any) -> Any:
        return principal(
            MSPPrincipal.COMBINED, msp_principal_pb2.CombinedPrincipal(principals=parts)
        )

    def anonymity(kind: Any) -> Any:
        wanted = msp_principal_pb2.MSPIdentityAnonymity(anonymity_type=kind)
        return principal(MSPPrincipal.ANONYMITY, wanted)

    member, admin = role("Org1MSP", 0), role("Org1MSP", 1)
    satisfied = [
        member,
        role("Org1MSP", 2),
        unit("client"),
        principal(MSPPrincipal.IDENTITY, client.serialized),
        combined(member, unit("client")),
        anonymity(msp_principal_pb2.MSPIdentityAnonymity.NOMINAL),
    ]
    refused = [
        admin,
        role("Org2MSP", 0),
        role("Org1MSP", 99),
        unit("peer"),
        unit("client", b""),
        unit("client", bytes(32)),
        anonymity(msp_principal_pb2.MSPIdentityAnonymity.ANONYMOUS),
        principal(MSPPrincipal.IDENTITY, org1.issue("another", "client").serialized),
        combined(member, admin),
        combined(),
    ]
    assert all(org1.msp.satisfies(client, wanted) for wanted in satisfied)
    assert not any(org1.msp.satisfies(client, wanted) for wanted in refused)
    assert not org2.msp.satisfies(client, member)
    for broken in (principal(MSPPrincipal.ROLE, b"\xff"), principal(77, b"")):
        with pytest.raises(MalformedPolicy):
            org1.msp.satisfies(client, broken)


@given(kind=st.integers(0, 5), data=st.binary(max_size=100))
def test_random_principals_raise_only_policy_errors(
    org1: Any, client: Any, kind: int, data: bytes
) -> None:
    wanted = MSPPrincipal(principal=data)
    wanted.principal_classification = kind  # type: ignore[assignment]
    with contextlib.suppress(MalformedPolicy):
        org1.msp.satisfies(client, wanted)


def test_the_configuration_is_one_that_fabric_takes(org1: Any, org2: Any) -> None:
    tls_root = org2.root.certificate
    config = MSP("Org1MSP", [org1.root.certificate], tls_root_certificates=[tls_root]).config()
    assert config.type == 0
    fabric = msp_config_pb2.FabricMSPConfig.FromString(config.config)
    assert fabric.name == "Org1MSP"
    assert list(fabric.root_certs) == [org1.root.certificate.public_bytes(Encoding.PEM)]
    assert list(fabric.tls_root_certs) == [tls_root.public_bytes(Encoding.PEM)]
    assert fabric.crypto_config.signature_hash_family == "SHA2"
    assert fabric.crypto_config.identity_identifier_hash_function == "SHA256"
    units = fabric.fabric_node_ous
    assert units.enable
    assert [
        units.client_ou_identifier.organizational_unit_identifier,
        units.peer_ou_identifier.organizational_unit_identifier,
        units.admin_ou_identifier.organizational_unit_identifier,
        units.orderer_ou_identifier.organizational_unit_identifier,
    ] == ["client", "peer", "admin", "orderer"]
    assert not fabric.HasField("signing_identity")


def test_without_node_ous_a_listed_certificate_is_the_admin(org1: Any) -> None:
    boss, worker = org1.issue("boss"), org1.issue("worker")
    msp = MSP("Org1MSP", [org1.root.certificate], admins=[boss.certificate], node_ous=None)
    for same in (msp, MSP.from_config(msp.config())):
        assert same.has_role(boss, ADMIN)
        assert same.has_role(worker, MEMBER)
        assert not same.has_role(worker, ADMIN)
        assert not same.has_role(worker, CLIENT)


def test_required_units_bind_every_member_also_by_who_certified_them(org1: Any, org2: Any) -> None:
    def msp(issuer: Any) -> MSP:
        pem = issuer.certificate.public_bytes(Encoding.PEM)
        configured = MSP("Org1MSP", [org1.root.certificate], required_units=[NodeOU("blue", pem)])
        return MSP.from_config(configured.config())

    blue, red = org1.issue("one", "blue", "client"), org1.issue("two", "red", "client")
    msp(org1.root).validate(blue)
    with pytest.raises(UnfitCertificate, match=r"none of the OUs .*blue"):
        msp(org1.root).validate(red)
    with pytest.raises(UnfitCertificate):
        msp(org2.root).validate(blue)


def test_a_folder_in_fabrics_layout_is_loaded(tmp_path: Path, org1: Any, org2: Any) -> None:
    for name, authority in (("cacerts", org1.root), ("tlscacerts", org2.root)):
        (tmp_path / name).mkdir()
        pem = authority.certificate.public_bytes(Encoding.PEM)
        (tmp_path / name / "ca.pem").write_bytes(pem)
    loaded = MSP.load(tmp_path, "Org1MSP")
    loaded.validate(org1.issue("someone", "client"))
    expected = MSP(
        "Org1MSP", [org1.root.certificate], tls_root_certificates=[org2.root.certificate]
    )
    assert loaded.config() == expected.config()


def test_a_folder_without_a_root_says_so(tmp_path: Path) -> None:
    with pytest.raises(MSPConfigurationError, match="cacerts holds no certificate"):
        MSP.load(tmp_path, "Org1MSP")


@given(data=st.binary(max_size=200))
def test_random_configurations_raise_only_configuration_errors(data: bytes) -> None:
    with pytest.raises(MSPConfigurationError):
        MSP.from_config(msp_config_pb2.MSPConfig(config=data))
    broken = msp_config_pb2.FabricMSPConfig(name="Org1MSP", root_certs=[data])
    with pytest.raises(MSPConfigurationError):
        MSP.from_config(msp_config_pb2.MSPConfig(config=broken.SerializeToString()))


def revocation_list(authority: Any, identity: Any) -> bytes:
    now = datetime.now(UTC)
    revoked = (
        x509.RevokedCertificateBuilder()
        .serial_number(identity.certificate.serial_number)
        .revocation_date(now)
        .build()
    )
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.name)
        .last_update(now)
        .next_update(now + DAY)
        .add_revoked_certificate(revoked)
        .sign(authority.key, hashes.SHA256())
    )
    return crl.public_bytes(Encoding.PEM)
