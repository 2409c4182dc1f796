"""Talking to Triton. The only package that imports `tritonclient`."""
