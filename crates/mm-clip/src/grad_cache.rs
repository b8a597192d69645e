use crate::task::ClipBatch;
use mm_sys::RngState;
use mm_train::{Loss, Pass, Result};
use tch::{Kind, Tensor};

/// The gradients of a loss that compares all samples of a batch, with a graph for only `chunk` of them at a time (GradCache: Gao et al. 2021,
/// "Scaling deep contrastive learning batch size under memory limited setup"): all are embedded without a graph, the loss gives the gradients of
/// their embeddings, and each chunk is embedded again to carry its own on to the weights. Exact, for the price of a second forward pass.
///
/// `embed` gives unit rows of a chunk's images and texts, and draws the same random numbers both times; `compare` gives the loss of all rows.
pub(crate) fn backward(
    batch: &ClipBatch,
    chunk: i64,
    pass: &Pass,
    embed: impl Fn(&ClipBatch) -> [Tensor; 2],
    compare: impl FnOnce(&[Tensor; 2]) -> Result<Loss>,
) -> Result<Loss> {
    let chunks = batch.chunks(chunk);
    let embed = |chunk: &ClipBatch| pass.forward(|| embed(chunk));
    let mut states = Vec::with_capacity(chunks.len());
    let mut rows = [Vec::new(), Vec::new()];
    for chunk in &chunks {
        states.push(RngState::of(pass.device).map_err(mm_core::Error::from)?);
        let embedded = tch::no_grad(|| embed(chunk));
        rows.iter_mut().zip(embedded).for_each(|(rows, embedded)| rows.push(embedded));
    }
    let leaves = rows.map(|rows| Tensor::cat(&rows, 0).set_requires_grad(true)); // [B, D]
    let loss = pass.forward(|| compare(&leaves))?;
    pass.backward(&(&loss.total * pass.share))?;
    let gradients = leaves.map(|leaf| leaf.grad());

    let mut first = 0;
    for (number, (chunk, state)) in chunks.iter().zip(states).enumerate() {
        state.restore().map_err(mm_core::Error::from)?;
        let embedded = embed(chunk);
        let count = embedded[0].size()[0];
        let terms = embedded.iter().zip(&gradients).filter(|(embedded, _)| embedded.requires_grad());
        let carried: Vec<Tensor> =
            terms.map(|(embedded, gradient)| (embedded * gradient.narrow(0, first, count)).sum(Kind::Float)).collect();
        first += count;
        if number + 1 == chunks.len() {
            pass.average_next();
        }
        if !carried.is_empty() {
            pass.backward(&carried.into_iter().sum())?;
        }
    }
    Ok(loss)
}
