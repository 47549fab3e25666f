"""Models that packing or spans of tokens cannot do justice to are refused, not trained wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from common.errors import InvalidConfig
from common.lora.engine import LoraEngine
from common.lora.frozen import FrozenLinear
from common.lora.layers import Factors, Layout, LoraLinear, Span
from common.models.loading import load_model
from tests.support.tiny_model import tiny_config


def test_a_layer_that_looks_along_the_row_is_found_out(tiny_folder: Path) -> None:
    base = load_model(tiny_config(tiny_folder))
    layer = base.model.get_decoder().layers[0].mlp
    with (
        layer.register_forward_hook(lambda _module, _inputs, output: output + 0.1 * output.roll(1, dims=1)),
        pytest.raises(InvalidConfig, match="llama mixes sequences"),
    ):
        LoraEngine(base)


def test_attention_in_chunks_is_refused(tiny_folder: Path) -> None:
    base = load_model(tiny_config(tiny_folder))
    base.model.config.attention_chunk_size = 8
    with pytest.raises(InvalidConfig, match="chunks"):
        LoraEngine(base)


@pytest.mark.parametrize("tokens", [5, 12])
def test_a_layer_that_sees_some_of_the_tokens_carries_no_adapter(tokens: int) -> None:
    """As the experts of a mixture do: whose tokens they are given is not known there."""
    layout = Layout()
    plain = torch.nn.Linear(3, 2, bias=False).requires_grad_(False)
    layer = LoraLinear(FrozenLinear(plain, packed=False), layout)
    layer.factors["v"] = Factors(torch.ones(1, 3), torch.ones(2, 1), 1.0)
    with layout.holding([Span("v", 0, 2)], rows=4, width=2):
        assert layer(torch.ones(4, 2, 3)).shape == (4, 2, 2)
        torch.testing.assert_close(layer(torch.ones(8, 3)), layer(torch.ones(4, 2, 3)).flatten(0, 1))
        with pytest.raises(InvalidConfig, match=f"{tokens} of 8 tokens"):
            layer(torch.ones(tokens, 3))
