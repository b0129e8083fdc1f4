"""`python -m tests.benchmarks`: kept tiny, because processes that benchmarks start import the main module again."""

if __name__ == "__main__":
    import sys

    from .suite import main

    sys.exit(main())
