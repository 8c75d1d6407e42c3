"""`python -m examples.tournament`."""

import sys

from examples.running import main
from examples.tournament.demo import DEMONSTRATION

if __name__ == "__main__":
    sys.exit(main(DEMONSTRATION))
