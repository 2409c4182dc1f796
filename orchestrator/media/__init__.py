"""Media in and out. The only package that imports `av`."""
