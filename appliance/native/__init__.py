"""Native: the engine's C++ that is ours, and how llama.cpp is built with it.

Owns kernels that replace some of ggml's through the linker, and the build that puts them in.
It imports nothing of the appliance: it runs before there is one.
"""
