"""Enrolment with the ca, for services, the command line and chaincode containers.

Usual use: `await enrol_service(volume, Path("/enrol/enrolment.json"), identities=["peer"])`.
"""

from selvedge_common.enrolment.client import (
    enrol_chaincode,
    enrol_producer,
    enrol_service,
    enrol_user,
    ensure_enrolled,
)
from selvedge_common.enrolment.document import Enrolment, EnrolmentError
from selvedge_common.enrolment.layout import Credential

__all__ = [
    "Credential",
    "Enrolment",
    "EnrolmentError",
    "enrol_chaincode",
    "enrol_producer",
    "enrol_service",
    "enrol_user",
    "ensure_enrolled",
]
