"""The fused sampler on CUDA devices; `csrc/cuda` has the kernels."""

from ldmlr.cuda_device import architectures, unavailable
from ldmlr.sampler.cuda.sampler import CudaSampler

__all__ = ["CudaSampler", "architectures", "unavailable"]
