"""Trained N2UQ networks as verified hardware (Liu et al., CVPR 2022, arXiv 2111.14826)."""

__version__ = "0.1.0"
