"""Widgets: how numbers and names are drawn."""
