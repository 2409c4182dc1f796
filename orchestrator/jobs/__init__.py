"""Durable jobs: accepted means on disk; what was finished before a crash is not done again."""
