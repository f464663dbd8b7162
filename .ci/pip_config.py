"""Says what pip inside an image build needs to reach the index that pip on this machine uses.

``python3 .ci/pip_config.py`` prints a ``pip.conf`` for the build;
``python3 .ci/pip_config.py --ca-bundle`` prints the path of the CA bundle, or nothing.
Both read ``pip config list``, so files and ``PIP_*`` variables count alike. Paths of this machine
mean nothing inside a build and are left out.
"""

import ast
import configparser
import os
import subprocess
import sys

CA_BUNDLE_IN_BUILD = "/run/secrets/ca_bundle"
CARRIED = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "default-timeout")


def settings() -> dict[str, str]:
    """Returns pip's options by name; a variable wins over a file, as it does in pip.

    Raises:
        subprocess.CalledProcessError: pip is missing or misconfigured; pip itself says which.
    """
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listing.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(section + "."):
                found[name.removeprefix(section + ".")] = str(ast.literal_eval(value))
    return found


def ca_bundle(pip: dict[str, str]) -> str:
    """Returns the path of the CA bundle pip trusts here, or "" where it uses its own."""
    for path in (pip.get("cert"), *map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"))):
        if path:
            return path
    return ""


def main() -> None:
    """Prints the CA bundle's path or the build's ``pip.conf``."""
    pip = settings()
    bundle = ca_bundle(pip)
    if sys.argv[1:] == ["--ca-bundle"]:
        print(bundle)
        return
    carried = {name: pip[name] for name in CARRIED if name in pip}
    if bundle:
        carried["cert"] = CA_BUNDLE_IN_BUILD
    config = configparser.RawConfigParser()
    config["global"] = carried
    config.write(sys.stdout)


if __name__ == "__main__":
    main()
