"""The networks that can be trained, by name: `build_model("cnn", num_classes=1000)`.

    python -m model predict MODEL.pth IMAGE...       the five best classes of each image
    python -m model export MODEL.pth --output FILE   the network for other programs: torch.export and ONNX

How to use the weights of a run in your own program: model/weights.py. torch is loaded when a network is first asked
for, so that help and mistakes need not wait for it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.cnn import Cnn
    from model.networks import MODELS, build_model

__all__ = ["MODELS", "Cnn", "build_model"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from model import networks

        return getattr(networks, name)
    raise AttributeError(f"module 'model' has no attribute {name!r}")
