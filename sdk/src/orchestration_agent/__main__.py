"""`python -m orchestration_agent`."""

import logging
import os
import sys

from orchestration_agent.process import main

if __name__ == "__main__":
    status = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: the interpreter would wait for threads of functions that do not end.
    os._exit(status)
