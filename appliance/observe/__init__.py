"""Observe: what the server has done lately, for whoever watches it."""
