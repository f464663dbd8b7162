"""Metrics of launching, under Fabric's names where Fabric has them.

Follows core/chaincode/metrics.go of Fabric 2.5. Labels hold names that registered or that packages
have: never what a stranger sent.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from selvedge_common.metrics import FabricCounter

launch_duration = Histogram(
    "chaincode_launch_duration",
    "The seconds until a chaincode that was asked for was there, or was given up.",
    ("chaincode", "success"),
)
launch_failures = FabricCounter(
    "chaincode_launch_failures",
    "The number of chaincode launches that have failed.",
    ("chaincode",),
)
launch_timeouts = FabricCounter(
    "chaincode_launch_timeouts",
    "The number of chaincode launches that have timed out.",
    ("chaincode",),
)
restarts = Counter(
    "chaincode_restarts",
    "The number of times that the peer launched a chaincode again: started it after it had ended, "
    "or dialled it once more.",
    ("chaincode",),
)
connects = Counter(
    "chaincode_connects",
    "The number of times that the peer dialled a chaincode, by whether there was a connection.",
    ("chaincode", "success"),
)
output_lines_dropped = Counter(
    "chaincode_output_lines_dropped",
    "The number of lines that chaincodes printed faster than they are logged.",
    ("chaincode",),
)
packages = Gauge("chaincode_packages", "The number of packages of chaincodes that can be used.")
broken_packages = Gauge(
    "chaincode_broken_packages",
    "The number of packages of chaincodes that cannot be used.",
)
