"""The fused sampler on CUDA devices; `csrc/cuda` has the kernels."""

from ldmlr.cuda.device import architectures, unavailable
from ldmlr.cuda.sampler import CudaSampler

__all__ = ["CudaSampler", "architectures", "unavailable"]
