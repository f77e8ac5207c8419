"""`python -m gpo_full.cli` is the command `gpo`."""

from gpo_full.cli.entry import main

if __name__ == "__main__":
    main()
