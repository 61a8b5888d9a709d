# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

from typing import get_args

import pytest
import torch

from anomalib_logic.models.glcf.bottleneck import (
    MultiScalePatchEmbedding,
    SemanticAggregation,
    SemanticBottleneck,
    Structure,
)

GRID = (2, 3)
LENGTH = 6


def aggregation(structure):
    torch.manual_seed(0)
    return SemanticAggregation(GRID, width=16, depth=1, heads=2, structure=structure).eval()


@pytest.mark.parametrize(
    ("structure", "tokens"),
    [("ps", "encoder_tokens"), ("pgs", "decoder_tokens"), ("pss", "decoder_tokens"), ("none", None)],
)
def test_without_transformers_the_representations_are_the_patches_and_the_learned_tokens(structure, tokens):
    module = aggregation(structure)
    module.encoder = module.patch_decoder = module.global_decoder = torch.nn.Identity()
    x = torch.randn(2, LENGTH, 16)
    semantic, patches = module(x)
    torch.testing.assert_close(patches, x + module.position)
    learned = x if tokens is None else getattr(module, tokens).expand(2, -1, -1)
    torch.testing.assert_close(semantic, learned + module.position)


@pytest.mark.parametrize(
    ("structure", "encoded", "decoded"),
    [("ps", 2 * LENGTH, LENGTH), ("pgs", LENGTH + 1, 1 + LENGTH), ("pss", 2 * LENGTH, 2 * LENGTH)],
)
def test_structure_sets_how_many_tokens_pass_encoder_and_global_decoder(structure, encoded, decoded):
    module = aggregation(structure)
    lengths = []
    for part in (module.encoder, module.global_decoder, module.patch_decoder):
        part.register_forward_hook(lambda _, inputs, __: lengths.append(inputs[0].shape[1]))
    module(torch.randn(1, LENGTH, 16))
    assert lengths == [encoded, decoded, LENGTH]


def test_without_semantic_tokens_one_output_serves_as_both():
    semantic, patches = aggregation("none")(torch.randn(1, LENGTH, 16))
    assert semantic is patches


@pytest.mark.parametrize("structure", ["pgs", "pss"])
def test_global_representation_comes_from_the_fresh_tokens(structure):
    """Without attention to others, a fresh token knows nothing of the image: the output is the same for all images."""
    module = aggregation(structure)
    for block in module.global_decoder[:-1]:
        torch.nn.init.zeros_(block.attn.proj.weight)
    first, _ = module(torch.randn(1, LENGTH, 16))
    second, _ = module(torch.randn(1, LENGTH, 16))
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("structure", ["ps", "pgs", "pss"])
def test_global_representation_depends_on_the_image(structure):
    module = aggregation(structure)
    first, _ = module(torch.randn(1, LENGTH, 16))
    second, _ = module(10 * torch.randn(1, LENGTH, 16))
    assert (first - second).abs().max() > 1e-4


def test_position_encoding_tells_positions_apart_and_is_not_trained():
    module = aggregation("pss")
    assert len(torch.unique(module.position[0], dim=0)) == LENGTH
    assert "position" not in dict(module.named_parameters())
    x, turned = torch.randn(1, LENGTH, 16), torch.arange(LENGTH).flip(0)
    for there, back in zip(module(x), module(x[:, turned]), strict=True):
        assert not torch.allclose(there, back[:, turned], atol=1e-3)


def test_unknown_structure_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"structure must be one of \('pss', 'pgs', 'ps', 'none'\), got 'abc'"):
        aggregation("abc")


def test_width_that_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match="width must be a multiple of 4 and of the 3 heads, got 16"):
        SemanticAggregation(GRID, width=16, depth=1, heads=3, structure="pss")


def test_patch_embedding_adds_the_scales():
    embed = MultiScalePatchEmbedding([2, 3, 5], [4, 2, 1], 8)
    maps = [torch.randn(1, 2, 8, 12), torch.randn(1, 3, 4, 6), torch.randn(1, 5, 2, 3)]
    parts = [e.proj(m).flatten(2).transpose(1, 2) for e, m in zip(embed.embeddings, maps, strict=True)]
    torch.testing.assert_close(embed(maps), parts[0] + parts[1] + parts[2])


@pytest.mark.parametrize("multi_scale", [True, False])
def test_shallow_maps_matter_only_with_multi_scale_embedding(multi_scale):
    torch.manual_seed(0)
    bottleneck = SemanticBottleneck([2, 3, 5], GRID, 16, 1, 2, structure="pss", multi_scale=multi_scale).eval()
    maps = [torch.randn(1, 2, 8, 12), torch.randn(1, 3, 4, 6), torch.randn(1, 5, 2, 3)]
    before = bottleneck(maps)[1]
    after = bottleneck([maps[0] + 1, *maps[1:]])[1]
    assert torch.equal(before, after) is not multi_scale


def test_representations_lie_on_the_deepest_map_row_by_row():
    bottleneck = SemanticBottleneck([2, 3, 5], GRID, 16, 1, 2, structure="pss", multi_scale=True).eval()
    maps = [torch.randn(2, 2, 8, 12), torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)]
    tokens = bottleneck.aggregation(bottleneck.embedding(maps))
    projections = (bottleneck.global_projection, bottleneck.patch_projection)
    for z, sequence, project in zip(bottleneck(maps), tokens, projections, strict=True):
        assert z.shape == (2, 5, 2, 3)
        for y, x in ((0, 0), (0, 2), (1, 1)):
            torch.testing.assert_close(z[:, :, y, x], project(sequence[:, 3 * y + x]))


@pytest.mark.parametrize("structure", get_args(Structure))
def test_patch_representation_is_the_same_without_the_global_one(structure):
    bottleneck = SemanticBottleneck([2, 3, 5], GRID, 16, 1, 2, structure=structure, multi_scale=True).eval()
    maps = [torch.randn(2, 2, 8, 12), torch.randn(2, 3, 4, 6), torch.randn(2, 5, 2, 3)]
    nothing, patches = bottleneck(maps, with_global=False)
    assert nothing is None
    assert torch.equal(patches, bottleneck(maps)[1])
