"""Screens: what fills the terminal, and the dialogs over it."""
