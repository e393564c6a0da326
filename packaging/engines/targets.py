"""Targets: the engines that are made before they are needed, and how each is built.

Every one has ggml's backends as libraries of their own (GGML_BACKEND_DL), so that a graphics card's
is one file beside the others, in a distribution that adds it.
"""

from dataclasses import dataclass

DYNAMIC = "-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON"
VARIANTS = f"{DYNAMIC} -DGGML_CPU_ALL_VARIANTS=ON"
PLAIN = f"{DYNAMIC} -DGGML_CPU=OFF"
"""Of what adds a graphics library: the processor's is in the distribution that it is added to."""


@dataclass(frozen=True)
class Target:
    """One wheel: CMake's arguments, and what it takes to make it."""

    name: str
    arguments: str
    needs: str
    """Tools beside CMake and a compiler, for the one who makes it."""
    added: str = ""
    """The library that it adds; empty: it is the whole engine."""
    requires: tuple[str, ...] = ()
    """Distributions that the added library loads."""
    platform: str = ""
    """Of a wheel that is compiled for another machine than this one."""


CUDA = "-DGGML_CUDA=ON -DCMAKE_CUDA_ARCHITECTURES="
TARGETS = (
    Target("cpu", VARIANTS, "GCC 12 or newer"),
    Target(
        "aarch64",
        f"{VARIANTS} -DCMAKE_TOOLCHAIN_FILE={{here}}/aarch64.cmake",
        "on Debian: apt install g++-aarch64-linux-gnu",
        platform="linux_aarch64",
    ),
    Target(
        "metal",
        f"{VARIANTS} -DGGML_METAL=ON -DGGML_METAL_EMBED_LIBRARY=ON",
        "a Mac with an Apple processor and Xcode's command line tools",
    ),
    Target(
        "vulkan",
        f"{PLAIN} -DGGML_VULKAN=ON",
        "on Debian 13 or newer: apt install libvulkan-dev glslc spirv-headers",
        added="ggml-vulkan",
    ),
    Target(
        "cuda12",
        f"{PLAIN} {CUDA}75-virtual;80-virtual;86-real;89-real;90-real",
        "CUDA 12's nvcc",
        added="ggml-cuda",
        requires=("nvidia-cuda-runtime-cu12", "nvidia-cublas-cu12"),
    ),
    Target(
        "cuda13",
        f"{PLAIN} {CUDA}75-virtual;80-virtual;86-real;89-real;90-real;120a-real",
        "CUDA 13's nvcc",
        added="ggml-cuda",
        requires=("nvidia-cuda-runtime>=13,<14", "nvidia-cublas>=13,<14"),
    ),
    Target("rocm", f"{PLAIN} -DGGML_HIP=ON", "ROCm's hipcc", added="ggml-hip"),
)
