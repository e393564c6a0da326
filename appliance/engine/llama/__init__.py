"""Llama: the only package that calls llama.cpp, through llama-cpp-python's low-level bindings.

Every call that could abort the process is preceded by the check that rules it out. The high-level
`Llama` class is never used: it renders templates from model files, reads rank heads out of bounds
and redirects the process's standard streams.
"""
