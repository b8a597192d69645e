//! Where on the page a text was read, from cross-attention.

use mm_vision::{PagePlacement, SwinConfig};
use tch::{Kind, Tensor};

/// The part of the largest weight from which on a token of the page belongs to a text.
const PART: f32 = 0.3;

/// Columns and rows that may lie between tokens of one text: spaces are not looked at.
const REACH: [usize; 2] = [2, 1];

/// How much each token of a text looked at each token of a page.
#[derive(Debug)]
pub(super) struct Attention {
    /// A row for each token of the text, of `rows * columns` weights.
    weights: Vec<f32>,
    rows: usize,
    columns: usize,
    /// Side of a token of the page, in pixels of the encoder's input.
    side: f64,
    /// Height and width of the encoder's input.
    input: [f64; 2],
}

impl Attention {
    /// From the cross-attention weights of each block, `[1, heads, L, S]`, at the last `tokens` positions:
    /// the mean over the heads of all blocks but the first, which looks around in decoders that have several.
    pub fn new(blocks: &[Tensor], tokens: i64, config: &SwinConfig) -> Self {
        let blocks = &blocks[blocks.len().min(2) - 1..];
        let mean = |weights: &Tensor| {
            let length = weights.size()[2];
            weights.get(0).narrow(1, length - tokens, tokens).mean_dim([0i64].as_slice(), false, Kind::Float)
        };
        let sum = blocks.iter().map(mean).reduce(|a, b| a + b).expect("a decoder has a block");
        let (rows, columns) = config.grid();
        Self {
            weights: Vec::try_from((sum / blocks.len() as f64).contiguous().view(-1)).unwrap_or_default(),
            rows: rows as usize,
            columns: columns as usize,
            side: (config.patch_size << (config.depths.len() - 1)) as f64,
            input: config.image_size.map(|side| side as f64),
        }
    }

    /// The box `[left, top, right, bottom]` of what the tokens `of_text` looked at, in pixels of the page;
    /// none where that is beside the page, or there is no such token.
    ///
    /// A decoder looks at some places whatever it writes. So the mean weights of the other tokens are
    /// subtracted, and the box is around the largest weight and those near it that are at least
    /// [`PART`] of it.
    pub fn place(&self, of_text: &[usize], placement: &PagePlacement) -> Option<[f64; 4]> {
        let map = self.map(of_text)?;
        let [left, top, right, bottom] = self.bounds(&map)?;
        let [height, width] = self.input;
        let [x0, y0, x1, y1] = placement.to_page([
            left as f64 * self.side,
            top as f64 * self.side,
            ((right + 1) as f64 * self.side).min(width),
            ((bottom + 1) as f64 * self.side).min(height),
        ]);
        (x1 > x0 && y1 > y0).then_some([x0, y0, x1, y1])
    }

    /// The mean weights of the tokens `of_text` beyond those of the others.
    fn map(&self, of_text: &[usize]) -> Option<Vec<f32>> {
        let cells = self.rows * self.columns;
        if of_text.is_empty() || cells == 0 {
            return None;
        }
        let (mut sums, mut counts) = ([vec![0.0f32; cells], vec![0.0f32; cells]], [0.0f32; 2]);
        for (token, weights) in self.weights.chunks_exact(cells).enumerate() {
            let of_others = usize::from(!of_text.contains(&token));
            counts[of_others] += 1.0;
            sums[of_others].iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        let [text, others] = sums;
        let counts = counts.map(|count| count.max(1.0));
        Some(text.iter().zip(others).map(|(text, others)| text / counts[0] - others / counts[1]).collect())
    }

    /// The first and last column and row of the largest weight and those around it.
    fn bounds(&self, map: &[f32]) -> Option<[usize; 4]> {
        let (peak, &most) = map.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
        if most.is_nan() || most <= 0.0 {
            return None;
        }
        let at = |cell: usize| (cell % self.columns, cell / self.columns);
        let (x, y) = at(peak);
        let (mut bounds, mut found, mut open) = ([x, y, x, y], vec![false; map.len()], vec![peak]);
        found[peak] = true;
        let [across, down] = REACH;
        while let Some(cell) = open.pop() {
            let (x, y) = at(cell);
            bounds = [bounds[0].min(x), bounds[1].min(y), bounds[2].max(x), bounds[3].max(y)];
            for near_y in y.saturating_sub(down)..=(y + down).min(self.rows - 1) {
                for near_x in x.saturating_sub(across)..=(x + across).min(self.columns - 1) {
                    let near = near_y * self.columns + near_x;
                    if !found[near] && map[near] >= PART * most {
                        found[near] = true;
                        open.push(near);
                    }
                }
            }
        }
        Some(bounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_vision::DocumentProcessor;

    /// A page of 8 x 10 tokens of 8 pixels.
    fn config() -> SwinConfig {
        SwinConfig {
            image_size: [80, 64],
            depths: vec![1, 1],
            num_heads: vec![1, 1],
            embed_dim: 8,
            window_size: 2,
            ..SwinConfig::default()
        }
    }

    /// The weights of texts that look at the given cells (column, row), beside a corner that all look at.
    fn attention(texts: &[&[(i64, i64)]]) -> Attention {
        let weights = Tensor::zeros([1, 2, texts.len() as i64 + 1, 80], (Kind::Float, tch::Device::Cpu));
        for (token, cells) in (1..).zip(texts) {
            let row = weights.select(2, token);
            let _ = row.select(2, 79).fill_(0.6);
            for (column, line) in *cells {
                let _ = row.select(2, line * 8 + column).fill_(0.4 / cells.len() as f64);
            }
        }
        Attention::new(&[weights.ones_like(), weights], texts.len() as i64, &config())
    }

    #[test]
    fn the_place_of_a_text_is_around_what_its_tokens_look_at() {
        let found = attention(&[&[(1, 2)], &[(2, 2)], &[(4, 2)], &[(6, 7), (6, 8)]]);
        let placement = DocumentProcessor::new(64, 80).placement(128, 160);
        assert_eq!(found.place(&[0, 1, 2], &placement), Some([16.0, 32.0, 80.0, 48.0]));
        assert_eq!(found.place(&[3], &placement), Some([96.0, 112.0, 112.0, 144.0]));
        assert_eq!(found.place(&[], &placement), None);
    }

    #[test]
    fn a_place_beside_the_page_is_none() {
        let found = attention(&[&[(0, 0)], &[(4, 4)]]);
        let placement = DocumentProcessor::new(64, 80).placement(64, 32); // rows 3 to 6
        assert_eq!(found.place(&[0], &placement), None);
        assert!(found.place(&[1], &placement).is_some());
    }
}
