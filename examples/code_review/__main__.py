"""`python -m examples.code_review`."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from cli.outcome import ExitCode, exit_code_of
from cli.output import print_error
from engine.errors import EngineError
from examples.code_review.demo import DemoOptions, run_demo

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("examples.code_review", description="Agents review a git repository.")
    parser.add_argument("--repo", type=Path, default=ROOT, help="the git repository (default: this one)")
    parser.add_argument("--report", type=Path, default=Path("review-report.md"), help="where the report is written")
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".data" / "demo", help="the engine's data")
    parser.add_argument("--keep", action="store_true", help="keep the engine running afterwards, until Ctrl-C")
    given = parser.parse_args(arguments)
    options = DemoOptions(given.repo.resolve(), given.report.resolve(), given.data_dir.resolve(), given.keep)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return run_demo(options)
    except EngineError as error:
        print_error(error, as_json=False)
        return exit_code_of(error)
    except KeyboardInterrupt:
        return ExitCode.OK if options.keep else ExitCode.INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)


def _terminate(_number: int, _frame: FrameType | None) -> None:
    """As Ctrl-C does: the engine must be stopped on the way out."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
