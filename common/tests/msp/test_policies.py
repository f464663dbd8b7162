"""Policies: who must have signed."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selvedge_common.msp import (
    ADMIN,
    MEMBER,
    PEER,
    MalformedPolicy,
    PolicyError,
    PolicyNotSatisfied,
)
from selvedge_common.msp.policies import (
    PolicyGroup,
    SignedData,
    endorsement_satisfied,
    evaluate,
    evaluate_path,
    implicit_meta_policy,
    satisfied,
    signature_policy,
    signed_by_any_member,
    signed_by_role,
)
from selvedge_protos.common import policies_pb2
from selvedge_protos.msp.msp_principal_pb2 import MSPPrincipal
from selvedge_protos.peer.policy_pb2 import ApplicationPolicy

ANY = policies_pb2.ImplicitMetaPolicy.ANY
ALL = policies_pb2.ImplicitMetaPolicy.ALL
MAJORITY = policies_pb2.ImplicitMetaPolicy.MAJORITY


@pytest.fixture
def msps(org1: Any, org2: Any) -> dict[str, Any]:
    return {"Org1MSP": org1.msp, "Org2MSP": org2.msp}


def signed(signer: Any, message: bytes = b"message") -> SignedData:
    return SignedData(message, signer.serialized, signer.sign(message))


def test_any_member_of_any_organisation_satisfies(client: Any, org2: Any, msps: Any) -> None:
    policy = signed_by_any_member(["Org1MSP", "Org2MSP"])
    for signer in (client, org2.issue("user", "client")):
        evaluate(policy, [signed(signer)], msps)


def test_nobody_satisfies_nothing(msps: Any) -> None:
    with pytest.raises(PolicyNotSatisfied, match="valid signatures of nobody"):
        evaluate(signed_by_any_member(["Org1MSP"]), [], msps)


def test_a_bad_signature_does_not_count_and_says_why(client: Any, msps: Any) -> None:
    forged = SignedData(b"another", client.serialized, client.sign(b"message"))
    with pytest.raises(PolicyNotSatisfied, match=r"Not counted: .*does not match the message"):
        evaluate(signed_by_any_member(["Org1MSP"]), [forged], msps)
    evaluate(signed_by_any_member(["Org1MSP"]), [forged, signed(client)], msps)


def test_one_identity_counts_once(org1: Any, client: Any, msps: Any) -> None:
    policy = signed_by_role(["Org1MSP"], [MEMBER, MEMBER], needed=2)
    with pytest.raises(PolicyNotSatisfied):
        evaluate(policy, [signed(client), signed(client, b"other")], msps)
    evaluate(policy, [signed(client), signed(org1.issue("second", "client"))], msps)


def test_a_failing_branch_uses_no_signature_up(client: Any, msps: Any) -> None:
    member, admin = signed_by_role(["Org1MSP"], [MEMBER, ADMIN]).identities
    by = [policies_pb2.SignaturePolicy(signed_by=index) for index in range(2)]
    both = policies_pb2.SignaturePolicy.NOutOf(n=2, rules=by)
    either = policies_pb2.SignaturePolicy.NOutOf(
        n=1, rules=[policies_pb2.SignaturePolicy(n_out_of=both), by[0]]
    )
    policy = policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(n_out_of=either), identities=[member, admin]
    )
    evaluate(policy, [signed(client)], msps)


def test_role_policies_look_at_the_role(client: Any, peer: Any, msps: Any) -> None:
    policy = signed_by_role(["Org1MSP"], [PEER])
    evaluate(policy, [signed(peer)], msps)
    with pytest.raises(PolicyNotSatisfied, match="OU=client,CN=user1 of Org1MSP"):
        evaluate(policy, [signed(client)], msps)


@pytest.mark.parametrize(
    "policy",
    [
        policies_pb2.SignaturePolicyEnvelope(),
        policies_pb2.SignaturePolicyEnvelope(rule=policies_pb2.SignaturePolicy(signed_by=0)),
        policies_pb2.SignaturePolicyEnvelope(rule=policies_pb2.SignaturePolicy(signed_by=-1)),
        policies_pb2.SignaturePolicyEnvelope(version=1),
    ],
)
def test_a_broken_policy_refuses_by_name(policy: Any, client: Any, msps: Any) -> None:
    with pytest.raises(MalformedPolicy):
        evaluate(policy, [signed(client)], msps)


def either(*principals: Any) -> policies_pb2.SignaturePolicyEnvelope:
    """One of these principals must sign."""
    by = [policies_pb2.SignaturePolicy(signed_by=index) for index in range(len(principals))]
    return policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(
            n_out_of=policies_pb2.SignaturePolicy.NOutOf(n=1, rules=by)
        ),
        identities=principals,
    )


def test_a_principal_that_cannot_be_read_is_satisfied_by_nobody(client: Any, msps: Any) -> None:
    (member,) = signed_by_any_member(["Org1MSP"]).identities
    broken = MSPPrincipal(principal_classification=MSPPrincipal.ROLE, principal=b"\xff")
    assert satisfied(either(broken, member), [client], msps)
    assert not satisfied(either(broken, broken), [client], msps)


def test_a_broken_rule_refuses_even_where_another_would_do(client: Any, msps: Any) -> None:
    (member,) = signed_by_any_member(["Org1MSP"]).identities
    policy = either(member)
    policy.rule.n_out_of.rules.add(signed_by=1)
    with pytest.raises(MalformedPolicy, match="refers to identity 1 and lists 1"):
        satisfied(policy, [client], msps)


def test_only_a_channels_configuration_is_asked_for_its_version(client: Any, msps: Any) -> None:
    policy = signed_by_any_member(["Org1MSP"])
    policy.version = 1
    assert satisfied(policy, [client], msps)
    with pytest.raises(MalformedPolicy, match="has version 1"):
        evaluate(policy, [signed(client)], msps)
    with pytest.raises(MalformedPolicy, match="has version 1"):
        PolicyGroup({"R": signature_policy(policy)}).satisfied("R", [client], msps)


def test_signers_are_tried_in_their_order_and_each_is_used_once(
    org1: Any, client: Any, peer: Any, msps: Any
) -> None:
    """As in Fabric the first that fits is taken, even if it would be needed later."""
    member, node = signed_by_role(["Org1MSP"], [MEMBER, PEER]).identities
    both = either(member, node)
    both.rule.n_out_of.n = 2
    assert satisfied(both, [client, peer], msps)
    assert not satisfied(both, [peer, client], msps)
    assert satisfied(both, [peer, org1.issue("peer1", "peer")], msps)


@pytest.mark.parametrize(
    ("policy", "holds"),
    [
        (ApplicationPolicy(signature_policy=signed_by_any_member(["Org1MSP"])), True),
        (ApplicationPolicy(signature_policy=signed_by_any_member(["Org2MSP"])), False),
        (ApplicationPolicy(channel_config_policy_reference="/Channel/App/R"), True),
        (ApplicationPolicy(channel_config_policy_reference="App/R"), True),
        (ApplicationPolicy(channel_config_policy_reference="/Channel/App/Other"), False),
    ],
)
def test_an_endorsement_policy_is_spelled_out_or_the_channels(
    policy: Any, holds: bool, client: Any, msps: Any
) -> None:
    theirs = signature_policy(signed_by_any_member(["Org2MSP"]))
    ours = signature_policy(signed_by_any_member(["Org1MSP"]))
    root = PolicyGroup({}, {"App": PolicyGroup({"R": ours, "Other": theirs})})
    assert endorsement_satisfied(policy, root, [client], msps) is holds


def test_an_endorsement_policy_that_is_none_refuses_by_name(client: Any, msps: Any) -> None:
    missing = ApplicationPolicy(channel_config_policy_reference="/Other/App/R")
    with pytest.raises(PolicyNotSatisfied, match="has no policy '/Other/App/R'"):
        endorsement_satisfied(missing, PolicyGroup({}), [client], msps)
    with pytest.raises(MalformedPolicy, match="endorsement policy is empty"):
        endorsement_satisfied(ApplicationPolicy(), PolicyGroup({}), [client], msps)


def organisation_group(mspid: str) -> PolicyGroup:
    return PolicyGroup({"Readers": signature_policy(signed_by_any_member([mspid]))})


@pytest.mark.parametrize(
    ("rule", "organisations", "holds"),
    [
        (ANY, 1, True),
        (ANY, 3, True),
        (MAJORITY, 1, True),
        (MAJORITY, 2, False),
        (MAJORITY, 3, False),
        (ALL, 1, True),
        (ALL, 2, False),
        (MAJORITY, 0, True),
    ],
)
def test_implicit_policies_count_their_groups(
    rule: Any, organisations: int, holds: bool, client: Any, msps: Any
) -> None:
    groups = {
        f"Org{number}MSP": organisation_group(f"Org{number}MSP")
        for number in range(1, organisations + 1)
    }
    root = PolicyGroup(
        {}, {"App": PolicyGroup({"R": implicit_meta_policy(rule, "Readers")}, groups)}
    )
    if holds:
        evaluate_path(root, "/Channel/App/R", [signed(client)], msps)
    else:
        with pytest.raises(PolicyNotSatisfied, match="The policy /Channel/App/R is not satisfied"):
            evaluate_path(root, "/Channel/App/R", [signed(client)], msps)


def test_a_majority_of_three_needs_two(client: Any, org2: Any, msps: Any) -> None:
    groups = {name: organisation_group(name) for name in ("Org1MSP", "Org2MSP", "Org3MSP")}
    root = PolicyGroup({"R": implicit_meta_policy(MAJORITY, "Readers")}, groups)
    evaluate_path(root, "/Channel/R", [signed(client), signed(org2.issue("u", "client"))], msps)


@pytest.mark.parametrize("path", ["/Channel/None/Readers", "/Channel/Nothing", "", "Readers"])
def test_a_missing_policy_refuses(path: str, client: Any, msps: Any) -> None:
    with pytest.raises(PolicyNotSatisfied, match="has no policy"):
        evaluate_path(PolicyGroup({}), path, [signed(client)], msps)


@given(data=st.binary(max_size=120), kind=st.integers(0, 4))
def test_random_policies_raise_only_policy_errors(
    client: Any, org1: Any, data: bytes, kind: int
) -> None:
    root = PolicyGroup({"R": policies_pb2.Policy(type=kind, value=data)})
    with contextlib.suppress(PolicyError):
        evaluate_path(root, "/Channel/R", [signed(client)], {"Org1MSP": org1.msp})
