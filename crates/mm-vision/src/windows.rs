//! The windows of a grid of tokens, straight or shifted.

use tch::{Device, Kind, Tensor};

/// What is added to the score of two tokens that a shifted window holds but that are not near each other in
/// the image, as in the peers.
const APART: f64 = -100.0;

/// Splits a grid of tokens into square windows (Liu et al. 2021, section 3.2). Where the sides of the grid
/// are no multiples of the window's, zeros are appended on the right and below, which attention sees.
///
/// Shifted windows wrap around the edges: the last window of a row holds the last tokens and the first ones.
/// So they come in four groups, by whether they wrap in rows and in columns, and all windows of a group have
/// the same mask. Rolling the whole grid, as the peers do, would need a mask for each window and more copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows {
    /// Rows of the grid.
    pub rows: i64,
    /// Columns of the grid.
    pub columns: i64,
    /// Tokens along a side of a window; at most the shorter side of the grid.
    pub side: i64,
    /// Tokens that windows are shifted by to the right and down, less than `side`; with a shift there are at
    /// least two windows in each direction.
    pub shift: i64,
}

impl Windows {
    /// The windows of `x` `[B, rows * columns, C]`, by group: `[B * windows, side * side, C]` each.
    pub fn split(&self, x: &Tensor) -> Vec<Tensor> {
        let (batch, _, width) = x.size3().expect("tokens are [B, N, C]");
        let x = self.pad(&x.view([batch, self.rows, self.columns, width]));
        if self.shift == 0 {
            return vec![self.partition(&x)];
        }
        let bands = self.wrap(&x, 1);
        bands.iter().flat_map(|band| self.wrap(band, 2)).map(|part| self.partition(&part)).collect()
    }

    /// The inverse of [`Windows::split`], of `batch` grids: `[batch, rows * columns, C]`.
    pub fn join(&self, groups: &[Tensor], batch: i64) -> Tensor {
        let (rows, columns) = self.padded();
        let grid = match groups {
            [inner, right, below, corner] => {
                let (side, shift) = (self.side, self.shift);
                let band = |inner: &Tensor, edge: &Tensor, rows: i64| {
                    let [inner, edge] = [(inner, columns - side), (edge, side)]
                        .map(|(group, columns)| self.unpartition(group, batch, rows, columns));
                    unwrap(&inner, &edge, 2, shift)
                };
                unwrap(&band(inner, right, rows - side), &band(below, corner, side), 1, shift)
            }
            groups => self.unpartition(&groups[0], batch, rows, columns),
        };
        let width = grid.size()[3];
        grid.narrow(1, 0, self.rows).narrow(2, 0, self.columns).reshape([
            batch,
            self.rows * self.columns,
            width,
        ])
    }

    /// What is added to the scores of each group, `[side * side, side * side]`: [`APART`] for tokens of two
    /// regions that a window holds by wrapping; none for a group that does not wrap.
    pub fn masks(side: i64, shift: i64, device: Device) -> Vec<Option<Tensor>> {
        if shift == 0 {
            return vec![None];
        }
        // 1 for tokens from the other edge, by row or column of the window.
        let wrapped = Tensor::arange(side, (Kind::Int64, device)).ge(side - shift).to_kind(Kind::Int64);
        let by_column = wrapped.unsqueeze(0).expand([side, side], false);
        let by_row = wrapped.unsqueeze(1).expand([side, side], false);
        let both = &by_row * 2 + &by_column;
        let mask = |region: &Tensor| {
            let region = region.reshape([side * side]);
            let is_apart = region.unsqueeze(1).ne_tensor(&region.unsqueeze(0));
            Some(is_apart.to_kind(Kind::Float) * APART)
        };
        vec![None, mask(&by_column), mask(&by_row), mask(&both)]
    }

    /// Rows and columns with the padding.
    fn padded(&self) -> (i64, i64) {
        let up = |length: i64| (length + self.side - 1) / self.side * self.side;
        (up(self.rows), up(self.columns))
    }

    /// Appends zeros to `x` `[B, rows, columns, C]`.
    fn pad(&self, x: &Tensor) -> Tensor {
        let (rows, columns) = self.padded();
        if (rows, columns) == (self.rows, self.columns) {
            return x.shallow_clone();
        }
        x.constant_pad_nd([0, 0, 0, columns - self.columns, 0, rows - self.rows])
    }

    /// Of `x`, the part along `dim` whose windows do not wrap, and the window that does.
    fn wrap(&self, x: &Tensor, dim: i64) -> [Tensor; 2] {
        let length = x.size()[dim as usize];
        let kept = self.side - self.shift;
        let edge = Tensor::cat(&[x.narrow(dim, length - kept, kept), x.narrow(dim, 0, self.shift)], dim);
        [x.narrow(dim, self.shift, length - self.side), edge]
    }

    /// `x` `[B, R, S, C]`, of whole windows, to `[B * windows, side * side, C]`.
    fn partition(&self, x: &Tensor) -> Tensor {
        let (batch, rows, columns, width) = x.size4().expect("a grid is [B, R, S, C]");
        let side = self.side;
        x.reshape([batch, rows / side, side, columns / side, side, width])
            .permute([0, 1, 3, 2, 4, 5]) // [B, R / side, S / side, side, side, C]
            .reshape([-1, side * side, width])
    }

    /// The inverse of [`Windows::partition`].
    fn unpartition(&self, windows: &Tensor, batch: i64, rows: i64, columns: i64) -> Tensor {
        let (side, width) = (self.side, windows.size()[2]);
        windows
            .view([batch, rows / side, columns / side, side, side, width])
            .permute([0, 1, 3, 2, 4, 5])
            .reshape([batch, rows, columns, width])
    }
}

/// The inverse of [`Windows::wrap`].
fn unwrap(inner: &Tensor, edge: &Tensor, dim: i64, shift: i64) -> Tensor {
    let kept = edge.size()[dim as usize] - shift;
    Tensor::cat(&[edge.narrow(dim, kept, shift), inner.shallow_clone(), edge.narrow(dim, 0, kept)], dim)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::normal;

    #[test]
    fn joined_windows_are_the_grid_again() {
        for (rows, columns, side, shift) in
            [(8, 8, 4, 0), (7, 9, 4, 0), (8, 12, 4, 2), (7, 9, 3, 1), (5, 6, 4, 2), (3, 5, 1, 0)]
        {
            let windows = Windows { rows, columns, side, shift };
            let x = normal(1, &[2, rows * columns, 3]);
            let groups = windows.split(&x);
            assert_eq!(groups.len(), if shift == 0 { 1 } else { 4 });
            let count: i64 = groups.iter().map(|group| group.size()[0]).sum();
            assert_eq!(count, 2 * ((rows + side - 1) / side) * ((columns + side - 1) / side));
            assert_eq!(windows.join(&groups, 2), x, "{windows:?}");
        }
    }

    #[test]
    fn shifted_windows_are_those_of_the_rolled_grid() {
        let (rows, columns, side, shift) = (6, 9, 3, 1);
        let windows = Windows { rows, columns, side, shift };
        let x = normal(2, &[1, rows * columns, 4]);
        let groups = windows.split(&x);
        let rolled = x.view([1, rows, columns, 4]).roll([-shift, -shift], [1, 2]);
        let straight = Windows { shift: 0, ..windows };
        let all = straight.partition(&rolled); // row by row, three windows in each
        let expected = [vec![0, 1], vec![2], vec![3, 4], vec![5]];
        for (group, indices) in groups.iter().zip(expected) {
            assert_eq!(*group, all.index_select(0, &Tensor::from_slice(&indices)));
        }
    }

    #[test]
    fn a_mask_parts_the_tokens_that_a_window_holds_by_wrapping() {
        let masks = Windows::masks(2, 1, Device::Cpu);
        let rows = |mask: &Option<Tensor>| -> Option<Vec<bool>> {
            mask.as_ref().map(|mask| Vec::try_from(mask.eq(0.0).view(-1)).unwrap())
        };
        assert_eq!(rows(&masks[0]), None);
        let (t, f) = (true, false);
        assert_eq!(rows(&masks[1]).unwrap(), [t, f, t, f, f, t, f, t, t, f, t, f, f, t, f, t]);
        assert_eq!(rows(&masks[2]).unwrap(), [t, t, f, f, t, t, f, f, f, f, t, t, f, f, t, t]);
        assert_eq!(rows(&masks[3]).unwrap(), [t, f, f, f, f, t, f, f, f, f, t, f, f, f, f, t]);
        assert_eq!(Windows::masks(4, 0, Device::Cpu).len(), 1);
    }
}
