"""Which pieces of the system a command sees. Only reading, and nothing that holds secrets."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
CONFIGURATION: Final = (
    "/etc/alternatives",
    "/etc/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)
FILES: Final = {
    "/etc/passwd": "root:x:0:0::/tmp/home:/usr/sbin/nologin\nhook:x:1000:1000::/tmp/home:/usr/sbin/nologin\n",
    "/etc/group": "root:x:0:\nhook:x:1000:\n",
    "/etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}


@dataclass(frozen=True, slots=True)
class RootLayout:
    readonly: dict[str, str]
    """Where it stands in the sandbox, and what it is in the system, free of links."""
    links: dict[str, str]
    files: dict[str, str]


def root_layout(program: Path, extra: tuple[Path, ...] = ()) -> RootLayout:
    """The system's programs and libraries, this Python with its packages, and where the program itself lies."""
    readonly: dict[str, str] = {}
    links: dict[str, str] = {}
    for path in SYSTEM:
        if os.path.islink(path):
            links[path] = os.readlink(path)
        elif os.path.isdir(path):
            readonly[path] = path
    readonly |= {path: os.path.realpath(path) for path in CONFIGURATION if os.path.exists(path)}
    roots = [Path(sys.base_prefix), Path(sys.prefix), program.parent, *extra]
    for root in sorted({Path(os.path.abspath(root)) for root in roots} | {root.resolve() for root in roots}):
        if not any(root == Path(seen) or Path(seen) in root.parents for seen in (*readonly, *links)):
            readonly[str(root)] = os.path.realpath(root)
    return RootLayout(readonly, links, dict(FILES))
