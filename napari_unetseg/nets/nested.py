"""UNet++: a U-Net whose skips are themselves nets of blocks.

Paper: Zhou et al. 2018, "UNet++: a nested U-Net architecture for medical image segmentation", arXiv:1807.10165. Built
from the paper alone: the authors' own code has a licence for non-commercial use only and calls the idea patent
pending, so whoever wants to sell something should ask first. None of that code was used.

Reading: widths 32..512, every node two 3x3 convolutions with bias and ReLU, without batch normalisation, transposed
convolutions between the levels: 9,041,601 parameters at one channel in, the integer of the authors' published count.
Node X(i, j) reads all X(i, 0..j-1) and the upsampled X(i+1, j-1). The last diagonal of nodes is the decoder; what
lies between it and the encoder is the skip. Kernels He-normal; the authors' dropout of 0.5 after every convolution is
left to ``dropout``. With ``parts={"deep_supervision": True}`` the finest row's nodes X(0, 1..3) have outputs too
(9,041,700): training sees a list of them, evaluation takes the mean (the paper's "accurate mode").
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from napari_unetseg.nets.assembly import NETS, SKIPS, Parts, SkipConn
from napari_unetseg.nets.blocks import Layers
from napari_unetseg.nets.making import Request

__all__ = ["NestedSkip", "unet_plus_plus"]


@SKIPS.register("nested", sentence="Nested nodes of UNet++, all concatenated")
class NestedSkip(SkipConn):
    """All nodes of UNet++ but those of the encoder and of the last diagonal.

    A level's skip is the concatenation of its nodes, finest first.
    """

    averages = True

    def __init__(self, layers: Layers, channels: Sequence[int], parts: Parts) -> None:
        super().__init__(layers, channels, parts)
        self.ups, self.blocks = nn.ModuleDict(), nn.ModuleDict()
        widths = parts.decoder_widths or parts.widths
        nodes = [[c] for c in channels]  # channels of each level's nodes
        depth = len(channels) - 1
        for column in range(1, depth):
            for level in range(depth - column):
                width = (parts.up_widths or widths)[level]
                up = parts.up(layers, nodes[level + 1][column - 1], width)
                cin = up.out + sum(nodes[level])
                block = (parts.decoder or parts.block)(layers, cin, widths[level])
                self.ups[f"{level}-{column}"], self.blocks[f"{level}-{column}"] = up, block
                nodes[level].append(block.out)
        self.nodes = nodes
        self.channels = [sum(each) for each in nodes]

    def prepare(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Run the nodes, column by column."""
        rows = [[x] for x in pyramid]
        depth = len(pyramid) - 1
        for column in range(1, depth):
            for level in range(depth - column):
                name, row = f"{level}-{column}", rows[level]
                up = self.ups[name](rows[level + 1][column - 1], row[0].shape[2:])
                row.append(self.blocks[name](torch.cat([up, *row], dim=1)))
        return [torch.cat(row, dim=1) if len(row) > 1 else row[0] for row in rows]

    def side_channels(self, decoder: Sequence[int]) -> list[int]:
        """Channels of the finest row's nodes after the first."""
        return self.nodes[0][1:]

    def sides(self, states: Sequence[Tensor], skips: Sequence[Tensor]) -> list[Tensor]:
        """The finest row's nodes after the first."""
        return list(torch.split(skips[0], self.nodes[0], dim=1))[1:]


@NETS.register(
    "unet++",
    title="UNet++",
    family="UNet++",
    paper="Zhou et al. 2018, arXiv:1807.10165",
    sentence="Nested skips across the U; slow. Built from the paper alone: its authors call it patent pending.",
    layers={"init": "he-normal"},
)
def unet_plus_plus(request: Request) -> Parts:
    """U-Net with nested skips."""
    return Parts(request.widths(32, 64, 128, 256, 512), skip=NestedSkip)
