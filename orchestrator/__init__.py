"""Lip-sync rendering on Triton: the service, the command line and the pipeline behind them."""
