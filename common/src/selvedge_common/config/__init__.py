"""Configuration: packaged YAML, overlaid by a file, overlaid by CORE_* variables."""

from selvedge_common.config.bounds import LONGEST, MOST, HostPort, Range
from selvedge_common.config.loader import Like, load, misspelt, variables
from selvedge_common.config.values import ConfigError, Duration, Size

__all__ = [
    "LONGEST",
    "MOST",
    "ConfigError",
    "Duration",
    "HostPort",
    "Like",
    "Range",
    "Size",
    "load",
    "misspelt",
    "variables",
]
