"""Ways to run the service: a pip-installed Triton in `local`, containers in `docker`."""
