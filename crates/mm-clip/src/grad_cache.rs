//! Gradients of a contrastive loss in chunks.

use crate::batch::ClipBatch;
use mm_sys::RngState;
use mm_train::{Loss, MicroBatch, Result};
use tch::{Kind, Tensor};

/// The gradients of a loss that compares all samples of a batch, with a graph for only `chunk` of them at a
/// time (GradCache: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited
/// setup"): all samples are embedded without a graph, the loss gives the gradients of the embeddings, and
/// each chunk but the last is embedded again to propagate its part to the weights. Exact, at the price of a
/// second forward pass.
///
/// `embed` gives unit rows of a chunk's images and texts, and draws the same random numbers both times;
/// `compare` gives the loss of all rows.
pub(crate) fn backward(
    batch: &ClipBatch,
    chunk: i64,
    micro_batch: &MicroBatch,
    embed: impl Fn(&ClipBatch) -> [Tensor; 2],
    compare: impl FnOnce(&[Tensor; 2]) -> Result<Loss>,
) -> Result<Loss> {
    let chunks = batch.chunks(chunk);
    let (last, others) = chunks.split_last().expect("a batch holds samples");
    let embed = |chunk: &ClipBatch| micro_batch.forward(|| embed(chunk));
    let mut states = Vec::with_capacity(others.len());
    let mut rows = [Vec::new(), Vec::new()];
    let mut keep = |embedded: [Tensor; 2]| {
        rows.iter_mut().zip(embedded).for_each(|(rows, embedded)| rows.push(embedded.detach()));
    };
    for chunk in others {
        states.push(RngState::of(micro_batch.device).map_err(mm_core::Error::from)?);
        keep(tch::no_grad(|| embed(chunk)));
    }
    let with_graph = embed(last); // there is memory for one graph
    keep(with_graph.each_ref().map(Tensor::shallow_clone));
    let leaves = rows.map(|rows| Tensor::cat(&rows, 0).set_requires_grad(true)); // [B, D]
    let loss = micro_batch.forward(|| compare(&leaves))?;
    micro_batch.backward(&(&loss.total * micro_batch.loss_scale))?;

    let gradients = leaves.map(|leaf| leaf.grad());
    let carry_on = |embedded: [Tensor; 2], first: i64, is_end: bool| {
        let rows = |gradient: &Tensor| gradient.narrow(0, first, embedded[0].size()[0]);
        let terms = embedded.iter().zip(&gradients).filter(|(embedded, _)| embedded.requires_grad());
        let terms: Vec<Tensor> = terms.map(|(x, gradient)| (x * rows(gradient)).sum(Kind::Float)).collect();
        if is_end {
            micro_batch.sync_gradients_on_next_backward();
        }
        if terms.is_empty() { Ok(()) } else { micro_batch.backward(&terms.into_iter().sum()) }
    };
    let drawn = RngState::of(micro_batch.device).map_err(mm_core::Error::from)?;
    carry_on(with_graph, chunk * others.len() as i64, others.is_empty())?;
    for (number, (one, state)) in others.iter().zip(states).enumerate() {
        state.restore().map_err(mm_core::Error::from)?;
        carry_on(embed(one), chunk * number as i64, number + 1 == others.len())?;
    }
    // the next step must not draw the last chunk's numbers again
    drawn.restore().map_err(mm_core::Error::from)?;
    Ok(loss)
}
