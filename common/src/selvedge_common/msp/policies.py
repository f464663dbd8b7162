"""Who must have signed: signature policies, implicit ones of a channel's groups, and endorsement
policies, which are one of either.

Follows Fabric's common/cauthdsl (cauthdsl.go: how a signature is used up; policy.go: whose version
is looked at), common/policies/policy.go (one identity counts once), common/policies/implicitmeta.go
and core/policy/application.go.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from google.protobuf.message import DecodeError

from selvedge_common.msp.errors import (
    IdentityError,
    MalformedPolicy,
    PolicyNotSatisfied,
)
from selvedge_common.msp.identity import Identity
from selvedge_common.msp.msp import MSP, identify
from selvedge_common.msp.roles import Role
from selvedge_common.quoting import quoted
from selvedge_protos.common import policies_pb2
from selvedge_protos.msp import msp_principal_pb2
from selvedge_protos.peer import policy_pb2


@dataclass(frozen=True)
class SignedData:
    """A signature (DER), who is said to have made it (serialized identity), and over what."""

    message: bytes
    identity: bytes
    signature: bytes


def verified_identities(
    signed_data: Iterable[SignedData], identify: Callable[[bytes], Identity]
) -> tuple[list[Identity], list[str]]:
    """Give the identities whose signatures hold, each once, and why the others do not.

    `identify` reads and validates a serialized identity, or raises IdentityError.
    """
    identities: list[Identity] = []
    reasons: list[str] = []
    for signed in signed_data:
        try:
            identity = identify(signed.identity)
            if identity in identities:
                continue
            identity.verify(signed.message, signed.signature)
        except IdentityError as error:
            reasons.append(str(error))
        else:
            identities.append(identity)
    return identities, reasons


def evaluate(
    policy: policies_pb2.SignaturePolicyEnvelope,
    signed_data: Iterable[SignedData],
    msps: Mapping[str, MSP],
) -> None:
    """Return when the signatures satisfy the policy of a channel's configuration.

    Raises PolicyNotSatisfied, with why signatures did not count, or MalformedPolicy.
    """
    _check_version(policy)
    identities, reasons = verified_identities(signed_data, partial(identify, msps=msps))
    if not satisfied(policy, identities, msps):
        raise not_satisfied("The signature policy", identities, reasons)


def satisfied(
    policy: policies_pb2.SignaturePolicyEnvelope,
    identities: Sequence[Identity],
    msps: Mapping[str, MSP],
) -> bool:
    """Tell whether distinct, verified `identities` satisfy the policy, whatever its version.

    A principal that cannot be read is one that nobody satisfies. Raises MalformedPolicy when a rule
    is broken, be it one on which nothing depends.
    """
    return _Evaluation(policy.identities, identities, msps).holds(policy.rule, set())


def endorsement_satisfied(
    policy: policy_pb2.ApplicationPolicy,
    root: PolicyGroup,
    identities: Sequence[Identity],
    msps: Mapping[str, MSP],
) -> bool:
    """Tell whether distinct, verified `identities` satisfy an endorsement policy.

    `root` is the channel's policies, from /Channel down, which it may refer to. Raises
    MalformedPolicy, or PolicyNotSatisfied when there is none at the path that it names.
    """
    kind = policy.WhichOneof("Type")
    if kind == "signature_policy":
        return satisfied(policy.signature_policy, identities, msps)
    if kind == "channel_config_policy_reference":
        return root.satisfied_at(policy.channel_config_policy_reference, identities, msps)
    raise MalformedPolicy(
        "The endorsement policy is empty: spell a signature policy out, or name a policy of the"
        " channel's configuration."
    )


class _Evaluation:
    """One signature policy's principals, and who of the signers satisfies each."""

    def __init__(
        self,
        principals: Sequence[msp_principal_pb2.MSPPrincipal],
        identities: Sequence[Identity],
        msps: Mapping[str, MSP],
    ) -> None:
        self._principals = principals
        self._identities = identities
        self._msps = msps
        self._known: dict[int, list[int]] = {}

    def holds(self, rule: policies_pb2.SignaturePolicy, used: set[int]) -> bool:
        """Evaluate one node; identities that it relies on are added to `used` when it holds."""
        kind = rule.WhichOneof("Type")
        if kind == "signed_by":
            unused = (one for one in self._satisfying(rule.signed_by) if one not in used)
            first = next(unused, None)
            if first is None:
                return False
            used.add(first)
            return True
        if kind == "n_out_of":
            holding = 0
            for inner in rule.n_out_of.rules:
                attempt = set(used)
                if self.holds(inner, attempt):
                    holding += 1
                    used |= attempt
            return holding >= rule.n_out_of.n
        raise MalformedPolicy("The signature policy has an empty rule: correct the policy.")

    def _satisfying(self, principal: int) -> list[int]:
        """Which identities satisfy a principal, in the order in which they signed."""
        if not 0 <= principal < len(self._principals):
            raise MalformedPolicy(
                f"The signature policy refers to identity {principal} and lists"
                f" {len(self._principals)}: correct the policy."
            )
        known = self._known.get(principal)
        if known is None:
            known = self._known[principal] = [
                index
                for index, identity in enumerate(self._identities)
                if self._satisfies(identity, self._principals[principal])
            ]
        return known

    def _satisfies(self, identity: Identity, principal: msp_principal_pb2.MSPPrincipal) -> bool:
        msp = self._msps.get(identity.mspid)
        try:
            return msp is not None and msp.satisfies(identity, principal)
        except MalformedPolicy:
            return False


def signed_by_role(
    mspids: Iterable[str], roles: Iterable[Role], needed: int = 1
) -> policies_pb2.SignaturePolicyEnvelope:
    """Make the policy that `needed` identities sign: of any of `mspids`, with any of `roles`."""
    principals = [
        msp_principal_pb2.MSPPrincipal(
            principal_classification=msp_principal_pb2.MSPPrincipal.ROLE,
            principal=msp_principal_pb2.MSPRole(
                msp_identifier=mspid,
                role=cast("msp_principal_pb2.MSPRole.MSPRoleType.ValueType", int(role)),
            ).SerializeToString(),
        )
        for mspid, role in itertools.product(sorted(mspids), roles)
    ]
    rules = [policies_pb2.SignaturePolicy(signed_by=index) for index in range(len(principals))]
    n_out_of = policies_pb2.SignaturePolicy.NOutOf(n=needed, rules=rules)
    return policies_pb2.SignaturePolicyEnvelope(
        rule=policies_pb2.SignaturePolicy(n_out_of=n_out_of), identities=principals
    )


def signed_by_any_member(mspids: Iterable[str]) -> policies_pb2.SignaturePolicyEnvelope:
    """Make the policy that any member of any of the organisations signs."""
    return signed_by_role(mspids, [Role.MEMBER])


def signature_policy(policy: policies_pb2.SignaturePolicyEnvelope) -> policies_pb2.Policy:
    """Wrap a signature policy as a channel configuration carries it."""
    return policies_pb2.Policy(type=policies_pb2.Policy.SIGNATURE, value=policy.SerializeToString())


def implicit_meta_policy(
    rule: policies_pb2.ImplicitMetaPolicy.Rule.ValueType, sub_policy: str
) -> policies_pb2.Policy:
    """Make the policy that `rule` (ANY, ALL, MAJORITY) of the sub-groups' `sub_policy` hold."""
    return policies_pb2.Policy(
        type=policies_pb2.Policy.IMPLICIT_META,
        value=policies_pb2.ImplicitMetaPolicy(rule=rule, sub_policy=sub_policy).SerializeToString(),
    )


@dataclass(frozen=True)
class PolicyGroup:
    """The policies of a configuration group and of the groups in it."""

    policies: Mapping[str, policies_pb2.Policy]
    groups: Mapping[str, PolicyGroup] = field(default_factory=dict)

    def satisfied(self, name: str, identities: Sequence[Identity], msps: Mapping[str, MSP]) -> bool:
        """Tell whether `identities` satisfy this group's policy `name`.

        A group without that policy refuses, as in Fabric. Raises MalformedPolicy.
        """
        policy = self.policies.get(name)
        if policy is None:
            return False
        try:
            if policy.type == policies_pb2.Policy.SIGNATURE:
                envelope = policies_pb2.SignaturePolicyEnvelope.FromString(policy.value)
                _check_version(envelope)
                return satisfied(envelope, identities, msps)
            if policy.type == policies_pb2.Policy.IMPLICIT_META:
                meta = policies_pb2.ImplicitMetaPolicy.FromString(policy.value)
                holding = sum(
                    group.satisfied(meta.sub_policy, identities, msps)
                    for group in self.groups.values()
                )
                return holding >= self._threshold(meta)
        except DecodeError as error:
            raise MalformedPolicy(
                f"The policy {name!r} cannot be read: take the configuration from an intact block."
            ) from error
        raise MalformedPolicy(
            f"The policy {name!r} has the type {policy.type}, which is not known here:"
            " use a signature or an implicit policy."
        )

    def satisfied_at(
        self, path: str, identities: Sequence[Identity], msps: Mapping[str, MSP]
    ) -> bool:
        """Tell whether `identities` satisfy the policy at `path`; this group is /Channel.

        Raises PolicyNotSatisfied where there is no such policy, or MalformedPolicy.
        """
        *groups, name = path.removeprefix("/Channel/").split("/")
        group: PolicyGroup | None = self
        for step in groups:
            group = group.groups.get(step) if group is not None else None
        if group is None or name not in group.policies:
            raise PolicyNotSatisfied(
                f"The channel's configuration has no policy {quoted(path)}: add it, or name"
                " another."
            )
        return group.satisfied(name, identities, msps)

    def _threshold(self, meta: policies_pb2.ImplicitMetaPolicy) -> int:
        count = len(self.groups)
        if count == 0:
            return 0
        if meta.rule == policies_pb2.ImplicitMetaPolicy.ANY:
            return 1
        if meta.rule == policies_pb2.ImplicitMetaPolicy.ALL:
            return count
        if meta.rule == policies_pb2.ImplicitMetaPolicy.MAJORITY:
            return count // 2 + 1
        raise MalformedPolicy(
            f"An implicit policy has the rule {meta.rule}: use ANY, ALL or MAJORITY."
        )


def evaluate_path(
    root: PolicyGroup,
    path: str,
    signed_data: Iterable[SignedData],
    msps: Mapping[str, MSP],
) -> None:
    """Return when the signatures satisfy the policy at `path`, like /Channel/Application/Readers.

    Raises PolicyNotSatisfied (also where there is no such policy) or MalformedPolicy.
    """
    identities, reasons = verified_identities(signed_data, partial(identify, msps=msps))
    if not root.satisfied_at(path, identities, msps):
        raise not_satisfied(f"The policy {path}", identities, reasons)


def _check_version(policy: policies_pb2.SignaturePolicyEnvelope) -> None:
    if policy.version != 0:
        raise MalformedPolicy(
            f"The signature policy has version {policy.version}: only version 0 is known here."
        )


def not_satisfied(
    what: str, identities: Sequence[Identity], reasons: Sequence[str] = ()
) -> PolicyNotSatisfied:
    """Say that those who signed do not satisfy the policy `what`, and why others do not count."""
    signers = ", ".join(map(str, identities)) or "nobody"
    detail = f" Not counted: {' '.join(reasons)}" if reasons else ""
    return PolicyNotSatisfied(
        f"{what} is not satisfied by the valid signatures of {signers}:"
        f" have it signed by those that the policy asks for.{detail}"
    )
