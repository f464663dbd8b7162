"""Metrics of the endorser, under Fabric's names and labels (core/endorser/metrics.go, 2.5).

The label `chaincode` holds names that have registered with this peer; any other name a proposal
may carry is counted as "unknown", as a client must not be able to make labels.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from selvedge_common.metrics import FabricCounter

UNKNOWN = "unknown"
_TARGET = ("channel", "chaincode")

proposals_received = FabricCounter(
    "endorser_proposals_received", "The number of proposals received."
)
successful_proposals = FabricCounter(
    "endorser_successful_proposals", "The number of successful proposals."
)
proposal_duration = Histogram(
    "endorser_proposal_duration",
    "The seconds it took to complete a proposal.",
    (*_TARGET, "success"),
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0),
)
proposal_validation_failures = FabricCounter(
    "endorser_proposal_validation_failures",
    "The number of proposals that have failed initial validation.",
)
proposal_acl_failures = FabricCounter(
    "endorser_proposal_acl_failures", "The number of proposals that failed ACL checks.", _TARGET
)
duplicate_transaction_failures = FabricCounter(
    "endorser_duplicate_transaction_failures",
    "The number of failed proposals due to duplicate transaction ID.",
    _TARGET,
)
proposal_simulation_failures = FabricCounter(
    "endorser_proposal_simulation_failures", "The number of failed proposal simulations.", _TARGET
)
endorsement_failures = FabricCounter(
    "endorser_endorsement_failures",
    "The number of failed endorsements.",
    (*_TARGET, "chaincodeerror"),
)
proposals_in_work = Gauge("endorser_proposals_in_work", "The number of proposals in work.")
proposals_over_limit = Counter(
    "endorser_proposals_over_limit",
    "The number of proposals refused because too many were in work.",
)
