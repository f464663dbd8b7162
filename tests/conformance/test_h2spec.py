"""The HTTP/2 and HPACK cases of h2spec."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance.conftest import Target
from tests.conformance.programs import run
from tests.e2e.tools import require

# What is to fail or to be skipped, and why: `section/case`, as h2spec's own arguments name them.
EXPECTED: dict[str, str] = {}

_CASES = 146  # strict ones included: that none was left out
_SECONDS = 240


@pytest.mark.timeout(_SECONDS + 20)
@pytest.mark.parametrize("security", ["plaintext", "tls"])
@pytest.mark.parametrize("transport", ["native"])
async def test_every_case_of_h2spec_passes(target: Target, tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    address = ["--host", "127.0.0.1", "--port", target.port]
    # It knows no roots; that clients verify the certificate is for the other tests here.
    tls = ["--tls", "--insecure"] if target.material else []
    all_of_it = ["--strict", "--junit-report", str(report)]
    ended = await run(require("h2spec"), *address, *tls, *all_of_it, seconds=_SECONDS)
    assert report.exists(), ended.stdout + ended.stderr
    outcomes = dict(_outcomes(report))
    assert len(outcomes) == _CASES
    wrong = {case: said for case, said in outcomes.items() if said and case not in EXPECTED}
    assert not wrong, "\n".join(f"{case}: {said}" for case, said in wrong.items())
    assert not [case for case in EXPECTED if not outcomes[case]], "passes by now: take it out"


def _outcomes(report: Path) -> Iterator[tuple[str, str | None]]:
    """Each case of the report, and what is wrong with it, if anything."""
    for suite in ET.parse(report).getroot():
        for number, case in enumerate(suite, 1):
            name = f"{suite.get('package')}/{number}"
            bad = next(iter(case), None)
            if bad is None:
                yield name, None
            else:
                yield name, f"{bad.tag}, {case.get('classname')}: {_told(bad.text)}"


def _told(text: str | None) -> str:
    """Its text: what would have been right, one a line, and then what came instead."""
    *right, came = (text or "").splitlines() or [""]
    return f"{' or '.join(right)} expected, {came} came" if right else came
