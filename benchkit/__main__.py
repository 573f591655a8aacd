"""`python -m benchkit ...` is `benchkit ...`."""

from benchkit.cli import main

main()
