"""Generate `protos/python/selvedge_protos` from the .proto files beside this script.

Run by `make protos`; `--output DIR` writes the package somewhere else, which is how the tests find
out whether the committed code is up to date. The files keep Fabric's own paths, so that a server's
reflection names them as Fabric does; only the Python imports move into one package, since names as
general as `common` and `peer` must not lie at the top level.
"""

import argparse
import re
import shutil
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

PACKAGE = "selvedge_protos"
SOURCES = Path(__file__).resolve().parent
OUTPUT = SOURCES / "python" / PACKAGE


class GenerationError(Exception):
    """The protobuf compiler refused the files; its own words went to stderr."""


def main() -> None:
    """Read the command line, generate, and put the result in the place of the old package."""
    parser = argparse.ArgumentParser(description="Generate Python code from the .proto files.")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help="folder of the package (default: %(default)s)"
    )
    output: Path = parser.parse_args().output
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / PACKAGE
        package.mkdir()
        try:
            generate(package)
        except GenerationError as error:
            sys.exit(f"protos/generate.py: {error}")
        shutil.rmtree(output, ignore_errors=True)
        shutil.copytree(package, output)


def generate(package: Path) -> None:
    """Write messages, service stubs and their types into the empty folder `package`.

    Raises:
        GenerationError: a .proto file does not compile.
    """
    protos = sorted(path.relative_to(SOURCES) for path in SOURCES.rglob("*.proto"))
    services = [path for path in protos if defines_service(path)]
    compile_protos(protos, [f"--python_out={package}", f"--mypy_out=quiet:{package}"])
    compile_protos(services, [f"--grpc_python_out={package}", f"--mypy_grpc_out=quiet:{package}"])
    for generated in sorted(package.rglob("*.py*")):
        generated.write_text(move_imports(generated.read_text(), protos))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    (package / "py.typed").touch()


def defines_service(proto: Path) -> bool:
    """Tell whether a file needs a `_pb2_grpc` module; Fabric's files of messages only do not."""
    return re.search(r"^service \w+ \{", (SOURCES / proto).read_text(), re.MULTILINE) is not None


def compile_protos(protos: list[Path], outputs: list[str]) -> None:
    """Run protoc over `protos` with the given output options."""
    scripts = Path(sys.executable).parent
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={SOURCES}",
            f"--proto_path={files('grpc_tools') / '_proto'}",
            f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
            f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
            *outputs,
            *map(str, protos),
        ]
    )
    if status != 0:
        raise GenerationError("protoc did not accept the files; correct what it names above")


def move_imports(code: str, protos: list[Path]) -> str:
    """Make generated code import its neighbours from the package instead of from the top level."""
    for proto in protos:
        folder, module = ".".join(proto.parent.parts), f"{proto.stem}_pb2"
        code = re.sub(
            rf"^from {re.escape(folder)} import {module}\b",
            f"from {PACKAGE}.{folder} import {module}",
            code,
            flags=re.MULTILINE,
        )
        # The name that messages carry as their __module__; pickle and repr rely on it.
        code = code.replace(f"'{folder}.{module}'", f"'{PACKAGE}.{folder}.{module}'")
    return code


if __name__ == "__main__":
    main()
