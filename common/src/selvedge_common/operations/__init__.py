"""The HTTP operations endpoint: /metrics /healthz /version /logspec."""

from selvedge_common.operations.health import Check, HealthChecks
from selvedge_common.operations.server import OperationsServer
from selvedge_common.operations.tls import OperationsError, OperationsTLS

__all__ = ["Check", "HealthChecks", "OperationsError", "OperationsServer", "OperationsTLS"]
