"""Benchmarks of the whole: `make bench`. A module per figure; every figure is a ratio of two things measured side by side in one run."""
