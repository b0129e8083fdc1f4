"""`python -m scheduler`: kept tiny, and without imports, because worker processes may import their main module."""

if __name__ == "__main__":
    import sys

    from .cli import main_module

    sys.exit(main_module())
