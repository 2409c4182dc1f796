"""Containers: the orchestrator's image, and what its compose file needs."""
