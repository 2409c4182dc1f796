"""One render: probe, analyse, infer, paste back, encode."""
