"""Images of the real node, made of this very machine: its interpreter with what agents need, and a pause."""

import hashlib
import importlib.metadata
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Final

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).resolve().parents[2]
AGENT_IMAGE: Final = "localhost/orchestrator-agent:tests"
PAUSE_IMAGE: Final = "localhost/orchestrator-pause:tests"
PYTHON: Final = "opt/python"
CODE: Final = "opt/agent"
UNUSED: Final = frozenset(
    {"test", "tests", "idlelib", "tkinter", "lib2to3", "ensurepip", "site-packages", "turtledemo", "pydoc_data"}
)
LDD_SECONDS: Final = 30
AGENTS_DISTRIBUTION: Final = "orchestration-agent"


def write_agent_image(archive: Path, code: Sequence[Path] = ()) -> None:
    """The interpreter, the SDK with its dependencies, the examples, and `code`: folders put on the module path."""
    prefix = Path(sys.base_prefix)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    layer = _Layer()
    program = prefix / "bin" / version
    layer.add(program, f"{PYTHON}/bin/python3")
    layer.add_tree(prefix / "lib" / version, f"{PYTHON}/lib/{version}", UNUSED)
    natives = [program, *(prefix / "lib" / version / "lib-dynload").glob("*.so")]
    for folder in _of_distribution(AGENTS_DISTRIBUTION):
        layer.add_tree(folder, f"{CODE}/{folder.name}", frozenset({"tests"}))
        natives += folder.rglob("*.so") if folder.is_dir() else []
    layer.add_tree(ROOT / "sdk" / "src" / "orchestration_agent", f"{CODE}/orchestration_agent", frozenset())
    layer.add_tree(ROOT / "examples", f"{CODE}/examples", frozenset({"__pycache__"}))
    for number, folder in enumerate(code):
        layer.add_tree(folder, f"{CODE}/more-{number}", frozenset({"__pycache__"}))
    for wanted, library in _libraries(natives):
        # The loader has its path from the program; everything else is found by name.
        layer.add(library, wanted.lstrip("/") if "ld-linux" in wanted else f"lib/{PurePosixPath(wanted).name}")
    layer.write("etc/passwd", b"root:x:0:0::/:/none\nagent:x:65532:65532::/tmp:/none\n")
    layer.folder("tmp", 0o1777)
    paths = [CODE, *(f"{CODE}/more-{number}" for number in range(len(code)))]
    environment = {
        "PATH": f"/{PYTHON}/bin",
        "LD_LIBRARY_PATH": f"/lib:/{PYTHON}/lib",
        "PYTHONPATH": ":".join(f"/{path}" for path in paths),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    _write_archive(archive, AGENT_IMAGE, layer, ["python3", "-P", "-m", "orchestration_agent"], environment)


def write_pause_image(archive: Path, program: Path) -> None:
    """What holds a pod's namespaces."""
    layer = _Layer()
    layer.add(program, "pause")
    _write_archive(archive, PAUSE_IMAGE, layer, ["/pause"], {})


class _Layer:
    """A layer that is being written. All in it belongs to root and may be read by everybody."""

    def __init__(self) -> None:
        self._content = io.BytesIO()
        self._tar = tarfile.open(fileobj=self._content, mode="w")  # noqa: SIM115 - closed by `close`
        self._names: set[str] = set()

    def add(self, file: Path, name: str) -> None:
        self.write(name, file.read_bytes(), 0o755 if os.access(file, os.X_OK) else 0o644)

    def add_tree(self, source: Path, name: str, without: frozenset[str]) -> None:
        if source.is_file():
            self.add(source, name)
            return
        for directory, folders, files in os.walk(source):
            folders[:] = sorted(each for each in folders if each not in without)
            inside = PurePosixPath(name, *Path(directory).relative_to(source).parts)
            for file in sorted(files):
                if not file.endswith((".a", ".pyc.tmp")):
                    self.add(Path(directory, file), str(inside / file))

    def write(self, name: str, content: bytes, mode: int = 0o644) -> None:
        for parent in reversed(PurePosixPath(name).parents[:-1]):
            self.folder(str(parent))
        if name not in self._names:
            self._names.add(name)
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            self._tar.addfile(entry, io.BytesIO(content))

    def folder(self, name: str, mode: int = 0o755) -> None:
        if name not in self._names:
            self._names.add(name)
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            self._tar.addfile(entry)

    def close(self) -> bytes:
        self._tar.close()
        return self._content.getvalue()


def _write_archive(
    archive: Path, name: str, layer: _Layer, command: Sequence[str], environment: dict[str, str]
) -> None:
    content = layer.close()
    config = {
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Cmd": list(command), "Env": [f"{key}={value}" for key, value in environment.items()]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(content).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(archive, "w") as tar:
        for file, body in (
            ("layer.tar", content),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(file)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))


def _of_distribution(name: str) -> Iterator[Path]:
    """What a distribution's dependencies, and theirs, have put into site-packages."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        distribution = importlib.metadata.distribution(waiting.pop())
        for text in distribution.requires or ():
            requirement = Requirement(text)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in seen:
                seen.add(requirement.name)
                waiting.append(requirement.name)
    for each in sorted(seen):
        distribution = importlib.metadata.distribution(each)
        tops = {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}
        for top in sorted(tops - {"__pycache__", "bin"}):
            yield Path(str(distribution.locate_file(top)))


def _libraries(programs: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """(the name under which it is wanted, the file) of each shared library."""
    said = subprocess.run(
        ["ldd", *map(str, programs)], capture_output=True, text=True, timeout=LDD_SECONDS, check=False
    )
    found: dict[str, Path] = {}
    for line in said.stdout.splitlines():
        if match := re.match(r"\s+(\S+) => (/\S+) \(", line):
            found[match[1]] = Path(match[2])
        elif match := re.match(r"\s+(/\S+) \(", line):
            found[match[1]] = Path(match[1])
    yield from found.items()
