"""Run the command line: ``python -m exo_stream``."""

import sys

from exo_stream.cli import main

if __name__ == "__main__":
    sys.exit(main())
