//! Decoding and encoding in overlapping tiles, for less memory.

use super::Vae;
use tch::Tensor;

/// The share of a tile that overlaps with the next.
const OVERLAP: f64 = 0.25;

impl Vae {
    /// As [`Vae::decode`], in tiles of the training size that overlap by a quarter and are blended linearly,
    /// as diffusers does: the memory of one tile, up to 1.8 times the work, and another result at the seams.
    pub fn decode_tiled(&self, latents: &Tensor) -> Tensor {
        let (tile, reduction) = (self.tile(), self.config().reduction());
        tiled(latents, tile, tile * reduction, |part| self.decode(part))
    }

    /// The side of a tile of latents.
    fn tile(&self) -> i64 {
        (self.config().sample_size / self.config().reduction()).max(1)
    }
}

/// `x` `[B, C, H, W]` through `forward` in tiles of `tile` by `tile` positions, which become `out_tile` by
/// `out_tile`.
fn tiled(x: &Tensor, tile: i64, out_tile: i64, forward: impl Fn(&Tensor) -> Tensor) -> Tensor {
    let (_, _, height, width) = x.size4().expect("an image is [B, C, H, W]");
    let step = ((tile as f64 * (1.0 - OVERLAP)) as i64).max(1);
    let blend = (out_tile as f64 * OVERLAP) as i64;
    let kept = out_tile - blend;
    let mut above: Vec<Tensor> = Vec::new();
    let mut rows = Vec::new();
    for top in (0..height).step_by(step as usize) {
        let mut row: Vec<Tensor> = Vec::new();
        let mut parts = Vec::new();
        for (index, left) in (0..width).step_by(step as usize).enumerate() {
            let part = x.narrow(2, top, tile.min(height - top)).narrow(3, left, tile.min(width - left));
            let mut out = forward(&part);
            if let Some(above) = above.get(index) {
                out = blended(above, &out, 2, blend);
            }
            if let Some(before) = row.last() {
                out = blended(before, &out, 3, blend);
            }
            let size = |dim: i64| out.size()[dim as usize].min(kept);
            parts.push(out.narrow(2, 0, size(2)).narrow(3, 0, size(3)));
            row.push(out);
        }
        rows.push(Tensor::cat(&parts, 3));
        above = row;
    }
    Tensor::cat(&rows, 2)
}

/// `after`, whose first `extent` positions along `dim` go over from the last of `before`.
fn blended(before: &Tensor, after: &Tensor, dim: i64, extent: i64) -> Tensor {
    let size = |x: &Tensor| x.size()[dim as usize];
    let extent = extent.min(size(before)).min(size(after));
    let mut shape = [1; 4];
    shape[dim as usize] = extent;
    let weight = Tensor::arange(extent, (after.kind(), after.device())).view(shape) / extent.max(1) as f64;
    let start = before.narrow(dim, size(before) - extent, extent) * (1.0 - &weight)
        + after.narrow(dim, 0, extent) * weight;
    Tensor::cat(&[start, after.narrow(dim, extent, size(after) - extent)], dim)
}
