//! What the config of every tower says about the tower.

/// The config of a tower, for code that trains or shows models without naming their towers. Parameters are
/// named below the tower's own path.
pub trait TowerSpec {
    /// The tower in one line: its family and its sizes.
    fn describe(&self) -> String;

    /// The number of blocks of a transformer, or of stages of a ResNet.
    fn blocks(&self) -> usize;

    /// The depth of the parameter `name`, for layer-wise learning rates and for locking: 0 for the embeddings
    /// or the stem, n for the n-th block, counted from 1; the norm and the head after the last block count
    /// with it. `blocks() + 1` is for a head that maps to the space shared with another tower.
    fn depth(&self, name: &str) -> usize;

    /// Whether the optimizer's weight decay applies to the parameter `name`, given that it is a matrix: not
    /// to class and position embeddings and the like, which are activations that do not depend on the input.
    fn has_weight_decay(&self, name: &str) -> bool;

    /// Whether the tower normalizes over the batch in training, so that a batch cannot be computed in parts.
    fn has_batch_norm(&self) -> bool {
        false
    }

    /// Whether training computes the activations inside of transformer blocks again in the backward pass:
    /// less memory, more time, the same gradients. Without effect on a tower that has none.
    fn set_gradient_checkpointing(&mut self, _on: bool) {}
}

/// The depth of a parameter of a tower with `blocks` transformer blocks, for [`TowerSpec::depth`]: blocks are
/// below `layers` (`encoder.layers`) by their index, and what begins with one of `inputs` is before them.
pub fn transformer_depth(name: &str, layers: &str, blocks: usize, inputs: &[&str]) -> usize {
    let block = name.strip_prefix(layers).and_then(|rest| rest.strip_prefix('.'));
    match block.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok()) {
        Some(block) => (block + 1).min(blocks),
        None if inputs.iter().any(|input| name.starts_with(input)) => 0,
        None => blocks,
    }
}

/// Defines an enum of tower configs: one line a tower, with the name that `kind` has in TOML. It dereferences
/// to the trait that all of them implement.
///
/// ```ignore
/// tower_configs! {
///     /// Which image tower, with its sizes.
///     pub enum ImageTowerConfig: dyn ImageTowerSpec {
///         /// A vision transformer.
///         Vit(VitConfig) = "vit",
///     }
/// }
/// ```
#[macro_export]
macro_rules! tower_configs {
    (
        $(#[$meta:meta])*
        $vis:vis enum $name:ident: dyn $spec:ident {
            $($(#[$doc:meta])* $variant:ident($config:ty) = $kind:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind")]
        $vis enum $name {
            $($(#[$doc])* #[serde(rename = $kind)] $variant($config),)+
        }

        impl std::ops::Deref for $name {
            type Target = dyn $spec;

            fn deref(&self) -> &Self::Target {
                match self {
                    $(Self::$variant(config) => config,)+
                }
            }
        }

        impl std::ops::DerefMut for $name {
            fn deref_mut(&mut self) -> &mut Self::Target {
                match self {
                    $(Self::$variant(config) => config,)+
                }
            }
        }
    };
}
