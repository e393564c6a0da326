"""Widgets: what several screens draw with."""
