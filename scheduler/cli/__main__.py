"""`python -m scheduler.cli`: the command `tickpool`."""

if __name__ == "__main__":
    import sys

    from . import main

    sys.exit(main())
