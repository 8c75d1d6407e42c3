"""`python -m examples PATTERN [ARGUMENT...]`: runs that pattern's example. `make demo PATTERN=...` is this."""

import runpy
import sys

from cli.outcome import ExitCode
from examples.registry import EXAMPLES, find_example


def main(arguments: list[str] | None = None) -> int:
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
    sys.argv[1:] = given[1:]
    runpy.run_module(f"examples.{found.module}", run_name="__main__", alter_sys=True)
    return ExitCode.OK  # for an example whose module does not end the process itself


if __name__ == "__main__":
    sys.exit(main())
