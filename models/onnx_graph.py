"""Generators as ONNX files: export for any model, and a runner with the model's ``infer``.

The graph takes the prepared tensors that the model's ``infer`` reads (``source_image``,
``source_pose``, ...) and returns ``fake_target``. The training options travel in the file, so that
it can be used alone.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.base_model import BaseModel, Batch, Tensors
from util.errors import UserError

OPTIONS_KEY = "options"
LOCAL_OPTIONS = ("checkpoints_dir", "dataroot", "results_dir", "name", "device")  # of one machine
OUTPUT = "fake_target"


class _ReadKeys(dict):
    """A dict that remembers which tensors were read from it, in order."""

    def __init__(self, content: Batch):
        super().__init__(content)
        self.read: list[str] = []

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if torch.is_tensor(value) and key not in self.read:
            self.read.append(key)
        return value


class GeneratorGraph(nn.Module):
    """A model's inference with tensors as arguments, in the order of ``input_names``."""

    def __init__(self, model: BaseModel, input_names: list[str]):
        super().__init__()
        self.networks = nn.ModuleDict(model.networks)
        self.model, self.input_names = model, input_names

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        return self.model.infer(dict(zip(self.input_names, tensors, strict=True)))[OUTPUT]


def with_noise(model: BaseModel, inputs: Batch) -> Batch:
    """Prepared inputs plus the noise that a model with a method ``noise`` draws in ``infer``."""
    if not hasattr(model, "noise") or "noise" in inputs:
        return inputs
    return inputs | {"noise": model.noise(inputs)}


def export(
    model: BaseModel,
    inputs: Batch,  # prepared example, at least two samples: a batch of one would become fixed
    path: Path,
    saved_options: dict[str, Any],  # vars(opt)
) -> list[str]:
    """Write the generator as one ONNX file with a dynamic batch; returns its input names."""
    try:
        import onnx
    except ImportError as error:
        raise UserError("exporting needs the package onnx: pip install onnx onnxruntime") from error
    inputs = _ReadKeys(with_noise(model, inputs))
    model.infer(inputs)
    names = list(inputs.read)
    graph = GeneratorGraph(model, names).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # that fused kernel has no ONNX counterpart
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter reports its own deprecations
            torch.onnx.export(
                graph,
                tuple(inputs[name] for name in names),
                str(path),
                input_names=names,
                output_names=[OUTPUT],
                dynamic_axes={name: {0: "batch"} for name in (*names, OUTPUT)},
                opset_version=17,
                dynamo=False,
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    content = onnx.load(str(path))
    options = {k: v for k, v in saved_options.items() if k not in LOCAL_OPTIONS}
    onnx.helper.set_model_props(content, {OPTIONS_KEY: json.dumps(options)})
    onnx.save(content, str(path))
    return names


class OnnxGenerator:
    """An exported generator in ONNX Runtime; may be called from several threads."""

    def __init__(self, path: str | Path, device: str | torch.device = "cpu"):
        self.path = Path(path)
        try:
            import onnxruntime
        except ImportError as error:
            raise UserError(
                f"{path} needs the package onnxruntime, which is not installed: pip install "
                "onnxruntime"
            ) from error
        providers = ["CPUExecutionProvider"]
        if torch.device(device).type == "cuda":
            providers.insert(0, "CUDAExecutionProvider")
        if providers[0] not in onnxruntime.get_available_providers():
            raise UserError(
                f"{path} cannot run on {device}: this onnxruntime has no CUDA; use the device cpu "
                "or install onnxruntime-gpu"
            )
        try:
            self.session = onnxruntime.InferenceSession(str(path), providers=providers)
        except Exception as error:  # onnxruntime has no public base class for its errors
            raise UserError(
                f"{path} is not a usable ONNX file ({error}); export it again"
            ) from error
        self.input_names = [value.name for value in self.session.get_inputs()]

    def saved_options(self) -> dict[str, Any]:
        """The training options inside the file."""
        metadata = self.session.get_modelmeta().custom_metadata_map
        if OPTIONS_KEY not in metadata:
            raise UserError(
                f"{self.path} holds no options; expected a file written by python -m "
                "script.export_onnx"
            )
        try:
            return dict(json.loads(metadata[OPTIONS_KEY]).items())
        except (ValueError, RecursionError, AttributeError) as error:
            raise UserError(
                f"{self.path}: its options are no JSON object ({error}); export it again"
            ) from None

    def infer(self, inputs: Batch) -> Tensors:
        """Like the model's: prepared inputs -> ``fake_target`` (B, 3, H, W) in [-1, 1]."""
        try:
            names = self.input_names
            feed = {name: np.ascontiguousarray(inputs[name].cpu().numpy()) for name in names}
            return {OUTPUT: torch.from_numpy(self.session.run([OUTPUT], feed)[0])}
        except Exception as error:  # onnxruntime has no public base class for its errors
            raise UserError(
                f"{self.path} does not fit its own options ({str(error).splitlines()[0]}): the "
                "graph or the options were changed; export it again"
            ) from error
