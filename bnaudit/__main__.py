"""`python -m bnaudit`."""

from bnaudit.cli.main import run

run()
