"""`python -m metaception` is the command line."""

import sys

from metaception.cli.main import main

sys.exit(main())
