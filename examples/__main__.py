"""`python -m examples PATTERN [ARGUMENT...]`: runs that pattern's example. `make demo PATTERN=...` is this."""

import os
import sys
from collections.abc import Callable

from cli.outcome import ExitCode
from examples.registry import EXAMPLES, find_example


def main(arguments: list[str] | None = None, become: Callable[[str, list[str]], object] = os.execv) -> int:
    """`become` replaces this process, so that signals reach the example itself."""
    given = sys.argv[1:] if arguments is None else arguments
    if not given or given[0] in ("-h", "--help"):
        print("python -m examples PATTERN [ARGUMENT...]")
        for example in EXAMPLES:
            print(f"  {example.pattern:<14}{example.summary}")
        return ExitCode.OK if given else ExitCode.USAGE
    found = find_example(given[0])
    if found is None:
        known = ", ".join(sorted({example.pattern for example in EXAMPLES}))
        print(f"there is no example of {given[0]!r}; there are: {known}", file=sys.stderr)
        return ExitCode.USAGE
    become(sys.executable, [sys.executable, "-m", f"examples.{found.module}", *given[1:]])
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
