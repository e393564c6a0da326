"""Screens: the tabs of the console, and its dialogs."""
