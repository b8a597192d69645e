//! A recurrent question encoder: word embeddings and an LSTM.

use crate::question::{QuestionEncoder, QuestionEncoderSpec, QuestionStates};
use crate::{Error, Result, Tokenizer};
use mm_core::Precision;
use mm_core::hf::{check_layers, check_sizes};
use mm_core::nn::{Embedding, TowerSpec, parameter};
use serde::{Deserialize, Serialize};
use tch::nn::{Init, Path};
use tch::{Device, Kind, Tensor};

/// The sizes of a [`LstmEncoder`]. Defaults are MCAN's (Yu et al. 2019, section 5.2), but for the vocabulary,
/// which is that of the tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LstmConfig {
    /// Rows of the word embedding.
    pub vocab_size: i64,
    /// Width of the word embedding, 300 for most GloVe files.
    pub embedding_size: i64,
    /// Width of the states of one direction.
    pub hidden_size: i64,
    /// Number of stacked LSTMs.
    pub num_layers: i64,
    /// Whether a second LSTM reads the question from its end. States are then twice as wide.
    pub bidirectional: bool,
}

impl Default for LstmConfig {
    fn default() -> Self {
        Self {
            vocab_size: 20_000,
            embedding_size: 300,
            hidden_size: 512,
            num_layers: 1,
            bidirectional: false,
        }
    }
}

impl LstmConfig {
    fn directions(&self) -> i64 {
        if self.bidirectional { 2 } else { 1 }
    }
}

impl TowerSpec for LstmConfig {
    fn describe(&self) -> String {
        let Self { vocab_size, embedding_size, hidden_size, num_layers, bidirectional } = self;
        let family = if *bidirectional { "bidirectional LSTM" } else { "LSTM" };
        format!("{family}: {num_layers} layers, width {hidden_size}; {vocab_size} words of {embedding_size}")
    }

    fn blocks(&self) -> usize {
        self.num_layers as usize
    }

    fn depth(&self, name: &str) -> usize {
        let layer = name.strip_suffix("_reverse").unwrap_or(name).rsplit_once("_l").map(|(_, layer)| layer);
        layer.and_then(|layer| layer.parse::<usize>().ok()).map_or(0, |layer| (layer + 1).min(self.blocks()))
    }

    fn has_weight_decay(&self, _name: &str) -> bool {
        true
    }
}

impl QuestionEncoderSpec for LstmConfig {
    fn build(&self, path: &Path) -> Result<Box<dyn QuestionEncoder>> {
        Ok(Box::new(LstmEncoder::new(path, self)?))
    }

    fn validate(&self) -> Result<()> {
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("embedding_size", self.embedding_size),
            ("hidden_size", self.hidden_size),
        ];
        check_sizes(&sizes)
            .and_then(|()| check_layers("num_layers", self.num_layers))
            .map_err(|reason| Error::Config(format!("LSTM: {reason}")))
    }

    fn embedding_width(&self) -> i64 {
        self.embedding_size
    }

    fn output_width(&self) -> i64 {
        self.directions() * self.hidden_size
    }

    fn context_length(&self) -> Option<i64> {
        None
    }

    fn vocab_size(&self) -> i64 {
        self.vocab_size
    }

    fn set_vocabulary(&mut self, tokenizer: &Tokenizer) {
        self.vocab_size = tokenizer.vocab_size() as i64;
    }

    fn is_recurrent(&self) -> bool {
        true
    }
}

/// Word embeddings and an LSTM (Hochreiter & Schmidhuber 1997) with the parameters of `torch.nn.Embedding`
/// (`embedding`) and `torch.nn.LSTM` (`lstm`), initialized as there.
///
/// It reads each question to its own end, as with `pack_padded_sequence`: padding changes nothing, and a
/// question in a batch has the states that it has alone.
#[derive(Debug)]
pub struct LstmEncoder {
    embedding: Embedding,
    /// In the order of libtorch: of each layer and direction the two weights, then the two biases.
    parameters: Vec<Tensor>,
    config: LstmConfig,
    /// Of the outputs.
    kind: Kind,
}

impl LstmEncoder {
    /// Creates the encoder's parameters below `path`.
    ///
    /// # Errors
    /// A size of `config` is out of range.
    pub fn new(path: &Path, config: &LstmConfig) -> Result<Self> {
        config.validate()?;
        let embedding =
            Embedding::new(&(path / "embedding"), config.vocab_size, config.embedding_size, EMBEDDING_STD);
        let (lstm, gates) = (path / "lstm", 4 * config.hidden_size);
        let bound = (config.hidden_size as f64).powf(-0.5);
        let init = Init::Uniform { lo: -bound, up: bound };
        let mut parameters = Vec::new();
        for layer in 0..config.num_layers {
            let input = if layer == 0 { config.embedding_size } else { config.output_width() };
            for direction in &["", "_reverse"][..config.directions() as usize] {
                let mut add = |name: &str, shape: &[i64]| {
                    parameters.push(parameter(&lstm, &format!("{name}_l{layer}{direction}"), shape, init));
                };
                add("weight_ih", &[gates, input]);
                add("weight_hh", &[gates, config.hidden_size]);
                add("bias_ih", &[gates]);
                add("bias_hh", &[gates]);
            }
        }
        Ok(Self { embedding, parameters, config: config.clone(), kind: Kind::Float })
    }

    /// The states of sequences `x` `[Q, L, E]` (f32) of `lengths` `[Q]` (i64), sorted from the longest.
    fn run(&self, x: &Tensor, lengths: &Tensor) -> QuestionStates {
        let (questions, length, _) = x.size3().expect("questions are [Q, L, E]");
        let (layers, directions) = (self.config.num_layers, self.config.directions());
        let (data, batch_sizes) = x.internal_pack_padded_sequence(lengths, true);
        let zeros =
            Tensor::zeros([layers * directions, questions, self.config.hidden_size], (x.kind(), x.device()));
        let state = [zeros.shallow_clone(), zeros];
        let parameters: Vec<Tensor> = self.parameters.iter().map(Tensor::shallow_clone).collect();
        let bidirectional = self.config.bidirectional;
        // Without dropout the training flag has no effect but to keep what the backward pass needs.
        let (outputs, last, _) = Tensor::lstm_data(
            &data,
            &batch_sizes,
            &state,
            &parameters,
            true,
            layers,
            0.0,
            true,
            bidirectional,
        );
        let (tokens, _) = Tensor::internal_pad_packed_sequence(&outputs, &batch_sizes, true, 0.0, length);
        // [directions, Q, H] to [Q, directions * H]
        let last = last.narrow(0, (layers - 1) * directions, directions);
        QuestionStates { tokens, last: last.transpose(0, 1).reshape([questions, -1]) }
    }
}

/// PyTorch's for `nn.Embedding`.
const EMBEDDING_STD: f64 = 1.0;

impl QuestionEncoder for LstmEncoder {
    fn embed(&self, input_ids: &Tensor) -> Tensor {
        self.embedding.forward(input_ids)
    }

    fn encode(&self, embedded: &Tensor, lengths: &Tensor) -> QuestionStates {
        let (questions, length, _) = embedded.size3().expect("questions are [Q, L, E]");
        if questions == 0 {
            let width = self.config.output_width();
            let zeros = |shape: &[i64]| Tensor::zeros(shape, (self.kind, embedded.device()));
            return QuestionStates { tokens: zeros(&[0, length, width]), last: zeros(&[0, width]) };
        }
        mm_sys::without_autocast(embedded.device(), || {
            let (lengths, order) = lengths.to_device(Device::Cpu).sort(0, true);
            let places = order.argsort(0, false).to_device(embedded.device());
            let x = embedded.index_select(0, &order.to_device(embedded.device())).to_kind(Kind::Float);
            let QuestionStates { tokens, last } = self.run(&x, &lengths);
            let restore = |states: Tensor| states.index_select(0, &places).to_kind(self.kind);
            QuestionStates { tokens: restore(tokens), last: restore(last) }
        })
    }

    fn word_embedding(&self) -> &Embedding {
        &self.embedding
    }

    fn pack(&mut self, precision: Precision) {
        // The recurrence stays in f32: its work is small, and errors of its state add up over the words.
        self.embedding.pack(precision);
        for parameter in &mut self.parameters {
            *parameter = parameter.detach();
        }
        self.kind = precision.kind();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_testing::{initialize, integers, normal};
    use tch::nn::VarStore;

    fn config() -> LstmConfig {
        LstmConfig { vocab_size: 9, embedding_size: 5, hidden_size: 6, num_layers: 2, bidirectional: true }
    }

    fn encoder(config: &LstmConfig) -> (VarStore, LstmEncoder) {
        let vs = VarStore::new(Device::Cpu);
        let encoder = LstmEncoder::new(&vs.root(), config).unwrap();
        initialize(&vs, 1);
        (vs, encoder)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn parameters_are_named_as_in_pytorch_and_have_a_depth() {
        let (config, vs) = (config(), VarStore::new(Device::Cpu));
        LstmEncoder::new(&vs.root(), &config).unwrap();
        let mut names: Vec<String> = vs.variables().into_keys().collect();
        names.sort();
        assert_eq!((names.len(), names[0].as_str()), (1 + 2 * 2 * 4, "embedding.weight"));
        for (name, depth) in [
            ("embedding.weight", 0),
            ("lstm.weight_ih_l0", 1),
            ("lstm.bias_hh_l0_reverse", 1),
            ("lstm.weight_hh_l1_reverse", 2),
        ] {
            assert!(names.iter().any(|known| known == name), "{name}");
            assert_eq!(config.depth(name), depth, "{name}");
        }
        let bound = vs.variables()["lstm.weight_hh_l0"].abs().max().double_value(&[]);
        assert!(bound <= 6f64.powf(-0.5) && bound > 0.3, "{bound}");
    }

    #[test]
    fn a_question_in_a_padded_batch_has_the_states_that_it_has_alone() {
        for config in [config(), LstmConfig { bidirectional: false, ..config() }] {
            let (_vs, encoder) = encoder(&config);
            let (ids, sizes) = (integers(2, 0..9, &[4, 7]), [3i64, 7, 1, 5]);
            let lengths = Tensor::from_slice(&sizes);
            let batch = encoder.encode(&encoder.embed(&ids), &lengths);
            assert_eq!(batch.tokens.size(), [4, 7, config.output_width()]);
            for (row, &length) in (0..).zip(&sizes) {
                let alone = ids.narrow(0, row, 1).narrow(1, 0, length);
                let alone = encoder.encode(&encoder.embed(&alone), &lengths.narrow(0, row, 1));
                let tokens = batch.tokens.narrow(0, row, 1);
                assert!(largest_difference(&tokens.narrow(1, 0, length), &alone.tokens) < 1e-6);
                assert!(largest_difference(&batch.last.narrow(0, row, 1), &alone.last) < 1e-6);
                let padding = tokens.narrow(1, length, 7 - length);
                assert_eq!(padding.abs().sum(Kind::Float).double_value(&[]), 0.0);
            }
        }
    }

    #[test]
    fn the_last_state_is_that_of_each_direction_at_its_end() {
        let (_vs, encoder) = encoder(&config());
        let states = encoder.encode(&normal(3, &[1, 4, 5]), &Tensor::from_slice(&[4i64]));
        let parts = [states.tokens.select(1, 3).narrow(1, 0, 6), states.tokens.select(1, 0).narrow(1, 6, 6)];
        assert!(largest_difference(&states.last, &Tensor::cat(&parts, 1)) < 1e-6);
    }

    #[test]
    fn no_questions_have_no_states() {
        let (_vs, encoder) = encoder(&config());
        let none = Tensor::zeros([0i64], (Kind::Int64, Device::Cpu));
        let states = encoder.encode(&normal(3, &[0, 4, 5]), &none);
        assert_eq!((states.tokens.size(), states.last.size()), (vec![0, 4, 12], vec![0, 12]));
    }

    #[test]
    fn a_size_out_of_range_is_named() {
        let error = LstmConfig { hidden_size: 0, ..config() }.validate().unwrap_err().to_string();
        assert!(error.contains("LSTM: hidden_size is 0"), "{error}");
    }
}
