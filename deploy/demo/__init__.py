"""`make demo`: a real face and real speech on a machine that has neither."""
