"""Goldens of mm-vision's resize_positions: position embeddings that open_clip resizes to other resolutions.

    positions.py OUT_DIR

`positions.safetensors` holds `table` [1 + 4 * 4, 24] and, for each grid g, `grid_g` [1 + g * g, 24].
"""

from types import SimpleNamespace

import torch
from open_clip.model import resize_pos_embed
from safetensors.torch import save_file

from shared.script import begin

PINNED = {"torch": "2.13.0", "open_clip_torch": "3.3.0"}
KEY = "visual.positional_embedding"


def resized(table, grid):
    """The table that open_clip's loader gives a model of `grid` x `grid` patches."""
    state = {KEY: table.clone()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=(grid, grid))))
    return state[KEY]


def main():
    out = begin(PINNED)
    torch.manual_seed(7)
    table = torch.randn(1 + 4 * 4, 24)
    tensors = {"table": table} | {f"grid_{grid}": resized(table, grid).contiguous() for grid in (2, 3, 7, 12)}
    save_file(tensors, out / "positions.safetensors")


if __name__ == "__main__":
    main()
