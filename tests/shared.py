"""Files that the tests use where they are, beside the project, and skip without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).parents[2] / "shared"
MNIST = Path(os.environ.get("N2UQ_MNIST") or SHARED / "data" / "mnist")
needs_mnist = pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST: name it in N2UQ_MNIST")
# A checkpoint of the authors' training code, and beside it images with the model's own logits.
CHECKPOINT = SHARED / "checkpoints" / "resnet18_w2a2_quantized_downsample.pth"
needs_checkpoint = pytest.mark.skipif(not CHECKPOINT.is_file(), reason=f"no {CHECKPOINT.name}")
# Networks made by others, as ONNX files, and beside each its reference inputs and outputs.
MODELS = SHARED / "models"
needs_models = pytest.mark.skipif(not MODELS.is_dir(), reason="no shared models")
NAMES = [path.stem for path in sorted(MODELS.glob("*.onnx"))] or ["none"]
FORMATS: dict[str, dict[str, Any]] = {  # of inputs that no quantizer reads
    "qkeras_mnist_cnn_w4w8a16": {"input_scale": 1 / 255, "input_bits": 8},
    "dvs_cnn_w2a2_ternary": {"input_bits": 2, "input_signed": True}}
