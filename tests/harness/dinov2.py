"""Small DINOv2 folders with random weights, written as transformers' own classes save them."""

import torch
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

KINDS = {False: (Dinov2Config, Dinov2Model), True: (Dinov2WithRegistersConfig, Dinov2WithRegistersModel)}


def write_dinov2(folder, *, registers=False, **changes):
    """A DINOv2 folder, as the published ones in all but its size."""
    config_class, model_class = KINDS[registers]
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 2, "image_size": 70}
    torch.manual_seed(0)
    model = model_class(config_class(patch_size=14, **small | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            # Fresh ones are so small that every picture would look the same.
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder
