//! Keys and values that decoding keeps from one step to the next.

use tch::{Device, Kind, Tensor};

/// Keys and values of the states that cross-attention reads, each `[G, heads, S, head]`.
#[derive(Debug)]
pub struct KeyValues {
    /// The keys.
    pub keys: Tensor,
    /// The values.
    pub values: Tensor,
}

impl KeyValues {
    /// The same, laid out for many steps of few queries on a CPU in f32: a product reads keys and values of a
    /// head in one run of memory.
    pub(in crate::nn) fn for_decoding(self) -> Self {
        if self.keys.device() != Device::Cpu || self.keys.kind() != Kind::Float {
            return self;
        }
        let keys = self.keys.transpose(-2, -1).contiguous().transpose(-2, -1);
        Self { keys, values: self.values.contiguous() }
    }

    /// Keeps the contexts `order`, in this order and in the same memory: of `G` contexts, context
    /// `order[i]` becomes context `i`. `order[i] >= i` holds for all `i`.
    pub(in crate::nn) fn keep(&mut self, order: &[i64]) {
        for tensor in [&mut self.keys, &mut self.values] {
            for (to, &from) in (0..).zip(order).filter(|(to, from)| to != *from) {
                tensor.narrow(0, to, 1).copy_(&tensor.narrow(0, from, 1));
            }
            *tensor = tensor.narrow(0, 0, order.len() as i64);
        }
    }
}

/// The keys and values of one self-attention layer at the positions decoded so far. Memory for `max_length`
/// positions is allocated at the first step, for the batch and the type that this has.
#[derive(Debug)]
pub(in crate::nn) struct LayerCache {
    max_length: i64,
    length: i64,
    /// Keys and values, each `[B, heads, max_length, head]`.
    memory: Option<KeyValues>,
}

impl LayerCache {
    pub fn new(max_length: i64) -> Self {
        Self { max_length, length: 0, memory: None }
    }

    /// Positions held.
    pub fn length(&self) -> i64 {
        self.length
    }

    /// Appends `keys` and `values` `[B, heads, L, head]` and gives all that are held, as views
    /// `[B, heads, length, head]`. They are not part of a graph.
    ///
    /// # Panics
    /// More than `max_length` positions, or another batch size than before.
    pub fn append(&mut self, keys: &Tensor, values: &Tensor) -> KeyValues {
        let size = keys.size();
        let (start, length) = (self.length, self.length + size[2]);
        assert!(length <= self.max_length, "{length} positions in a cache of {}", self.max_length);
        let max_length = self.max_length;
        let memory = self.memory.get_or_insert_with(|| {
            let allocate = |like: &Tensor| {
                let shape = [size[0], size[1], max_length, size[3]];
                Tensor::empty(shape, (like.kind(), like.device()))
            };
            KeyValues { keys: allocate(keys), values: allocate(values) }
        });
        memory.keys.narrow(2, start, size[2]).copy_(&keys.detach());
        memory.values.narrow(2, start, size[2]).copy_(&values.detach());
        self.length = length;
        KeyValues { keys: memory.keys.narrow(2, 0, length), values: memory.values.narrow(2, 0, length) }
    }

    /// Makes row `i` what row `rows[i]` was; `rows` `[B']` (i64). Memory is allocated anew only where the
    /// number of rows changes.
    pub fn select_rows(&mut self, rows: &Tensor) {
        let Some(memory) = &mut self.memory else { return };
        let (count, length, max_length) = (rows.size()[0], self.length, self.max_length);
        for tensor in [&mut memory.keys, &mut memory.values] {
            let selected = tensor.narrow(2, 0, length).index_select(0, rows);
            let size = tensor.size();
            if size[0] != count {
                let shape = [count, size[1], max_length, size[3]];
                *tensor = Tensor::empty(shape, (tensor.kind(), tensor.device()));
            }
            tensor.narrow(2, 0, length).copy_(&selected);
        }
    }
}
