"""Builds what the chaincodes and applications of the tests need; run as a program, all of it.

What is built lies in the user's cache, in a folder named after the very files it was made from: a
second run finds it there. The standard library is enough, for `.ci/tools` runs this before there is
anything else.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "selvedge" / "shims"


@dataclass(frozen=True)
class Product:
    """Something built.

    Attributes:
        name: of its folder, before the digest of its sources.
        sources: the files that it is made from, each relative to this folder.
        needs: the programs that make it.
        make: makes it in the folder it is given.
    """

    name: str
    sources: tuple[Path, ...]
    needs: tuple[str, ...]
    make: Callable[[Path], None]

    @property
    def folder(self) -> Path:
        """Where it is, once it is built."""
        digest = hashlib.sha256()
        for source in self.sources:
            content = (HERE / source).read_bytes()
            digest.update(f"{source} {len(content)}\n".encode() + content)
        return CACHE / f"{self.name}-{digest.hexdigest()[:16]}"

    @property
    def built(self) -> bool:
        """Whether it is there."""
        return self.folder.exists()

    def build(self) -> Path:
        """Its folder, made first if it is not there.

        Raises:
            subprocess.CalledProcessError: a program failed; it has printed why.
        """
        folder = self.folder
        CACHE.mkdir(parents=True, exist_ok=True)
        with (CACHE / f"{self.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                draft = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=CACHE))
                try:
                    self.make(draft)
                    draft.rename(folder)
                finally:
                    shutil.rmtree(draft, ignore_errors=True)
        return folder


def _run(*words: str | Path, folder: Path) -> None:
    subprocess.run([str(word) for word in words], cwd=folder, check=True, stdout=sys.stderr)


def _files(folder: str, *patterns: str) -> tuple[Path, ...]:
    found = [path for pattern in patterns for path in (HERE / folder).rglob(pattern)]
    return tuple(sorted(path.relative_to(HERE) for path in found))


def _node_modules(name: str, source: Path) -> Product:
    def make(folder: Path) -> None:
        for file in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / source / file, folder)
        _run("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", folder=folder)

    locks = (source / "package.json", source / "package-lock.json")
    return Product(name, locks, ("npm",), make)


def _make_programs(folder: Path) -> None:
    _run("go", "build", "-ldflags=-s -w", "-o", folder, "./...", folder=HERE / "go")


def _make_jars(folder: Path) -> None:
    copying = f"-DoutputDirectory={folder}"
    pom = ("--file", HERE / "java" / "pom.xml")
    _run(
        "mvn", "--quiet", "--batch-mode", *pom, "dependency:copy-dependencies", copying, folder=HERE
    )


def _make_classes(folder: Path) -> None:
    jars = JARS.build() / "*"
    source = HERE / "java" / "Shims.java"
    _run("javac", "-cp", jars, "-d", folder, source, folder=HERE)


NODE_22 = _node_modules("node-2.2", Path("node", "2.2"))
NODE_25 = _node_modules("node-2.5", Path("node", "2.5"))
FABRIC_NETWORK = _node_modules("fabric-network", Path("..", "sdks", "fabric-network"))
FABRIC_GATEWAY = _node_modules("fabric-gateway", Path("..", "sdks", "fabric-gateway"))
GO = Product("go", _files("go", "*.go", "go.mod", "go.sum"), ("go",), _make_programs)
JARS = Product("jars", (Path("java/pom.xml"),), ("mvn",), _make_jars)
CLASSES = Product("classes", _files("java", "*"), ("javac", *JARS.needs), _make_classes)

PRODUCTS = (NODE_22, NODE_25, FABRIC_NETWORK, FABRIC_GATEWAY, GO, JARS, CLASSES)

_USAGE = """usage: build.py [--missing]

Builds the chaincodes and applications of the tests in the user's cache.

  --missing   only print what is not built yet, one a line
"""


def main() -> None:
    """Builds everything, or lists what is not built."""
    missing = [product for product in PRODUCTS if not product.built]
    if sys.argv[1:] == ["--missing"]:
        print(*(product.name for product in missing), sep="\n")
        return
    if sys.argv[1:]:
        sys.exit(_USAGE)
    for product in missing:
        print(f"building {product.folder}", file=sys.stderr)
        product.build()


if __name__ == "__main__":
    main()
