#!/bin/sh
# A stand-in for CUDA's compiler: it compiles nothing.
[ "$1" = -V ] || [ "$1" = --version ] || { echo "stand-in for nvcc: does not know $*" >&2; exit 1; }
echo "nvcc: NVIDIA (R) Cuda compiler driver"
echo "Cuda compilation tools, release 12.8, V12.8.93"
