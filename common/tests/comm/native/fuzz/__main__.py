"""Fuzz the native transport, guided by coverage; `--help` says how."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import atheris  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from common.tests.comm.native.fuzz.target import Target

EPILOG = """examples:
  make fuzz                                                       a minute, from the seeds
  python -m common.tests.comm.native.fuzz --seconds 600 --corpus corpus   keep what it finds
  python -m common.tests.comm.native.fuzz --runs 1 crash-1234     one input again

An input is one connection's life; fuzz/target.py says what has to hold in it. When something does
not, the input is left in the current folder as crash-..., and the exit code is not 0.
"""


def main() -> None:
    """Fuzz until the time is up, or something does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m common.tests.comm.native.fuzz",
        description="Fuzz frames, HPACK and gRPC messages of the native transport.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: 60)")
    parser.add_argument(
        "--runs", type=int, default=-1, help="how many inputs (default: any number)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of chance; 0 for another each time")
    parser.add_argument("--corpus", type=Path, help="a folder of inputs; new ones are added")
    parser.add_argument("inputs", nargs="*", type=Path, help="only these files, each once")
    arguments = parser.parse_args()
    if arguments.inputs:
        target = _target()
        for path in arguments.inputs:
            target.feed(path.read_bytes())
        target.close()
        return
    with tempfile.TemporaryDirectory() as folder:
        corpus = arguments.corpus or Path(folder)
        _fuzz(corpus, arguments.seconds, arguments.runs, arguments.seed)


def _fuzz(corpus: Path, seconds: int, runs: int, seed: int) -> None:
    with atheris.instrument_imports(include=["selvedge_common.comm", "hpack"]):
        target = _target()
        from common.tests.comm.native.fuzz.seeds import seeds
    corpus.mkdir(exist_ok=True)
    for number, content in enumerate(seeds()):
        (corpus / f"seed-{number:03}").write_bytes(content)
    options = [f"-max_total_time={seconds}", f"-runs={runs}", f"-seed={seed}", "-max_len=20000"]
    atheris.Setup([sys.argv[0], *options, "-timeout=10", str(corpus)], target.feed)
    atheris.Fuzz()


def _target() -> "Target":
    """Imported late: what is imported before the fuzzer is set up is not seen by it."""
    from common.tests.comm.native.fuzz.target import Target

    return Target()


if __name__ == "__main__":
    main()
