"""The benchmark suite: `python -m tests.benchmarks` prints ours beside the floors of the same run; no timed tests."""
