//! What the towers promise beyond their goldens: cut batches change nothing, packed weights little, and
//! misfits are refused.

use mm_core::Precision;
use mm_text::{
    BertConfig, BertPooling, ClipTextConfig, ClipTextVariant, Error, TextTower, TextTowerConfig, TokenBatch,
    train_bpe,
};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

const EOS: i64 = 99;
const LENGTH: i64 = 16;

fn clip() -> ClipTextConfig {
    ClipTextConfig {
        vocab_size: 100,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: LENGTH,
        eos_token_id: EOS,
        ..ClipTextConfig::default()
    }
}

fn bert(pooling: BertPooling) -> TextTowerConfig {
    TextTowerConfig::Bert(BertConfig {
        vocab_size: 100,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        max_position_embeddings: LENGTH,
        pooling,
        ..BertConfig::default()
    })
}

fn build(config: &TextTowerConfig) -> (VarStore, Box<dyn TextTower>) {
    let vs = VarStore::new(Device::Cpu);
    let tower = config.build(&vs.root()).unwrap();
    mm_testing::initialize(&vs, 5);
    (vs, tower)
}

/// Texts of the lengths given, each ending in EOS, padded to 16.
fn texts(lengths: &[usize]) -> TokenBatch {
    let rows: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| (1..length).map(|i| (i * 7 % 90) as u32).chain([EOS as u32]).collect())
        .collect();
    TokenBatch::from_rows(&rows, LENGTH as usize, 0)
}

/// Output of the first `rows` texts, and the gradients that a fixed sum of it sends to every weight.
fn run(config: &TextTowerConfig, tokens: &TokenBatch, rows: i64) -> (Tensor, Vec<Tensor>) {
    let (vs, tower) = build(config);
    let y = tower.forward(tokens).narrow(0, 0, rows);
    let direction = Tensor::arange(y.numel() as i64, (Kind::Float, Device::Cpu)).sin().view_as(&y);
    (&y * direction).sum(Kind::Float).backward();
    let mut variables: Vec<_> = vs.variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    (y.detach(), variables.into_iter().map(|(_, variable)| variable.grad()).collect())
}

#[test]
fn a_cut_batch_gives_the_outputs_and_gradients_of_the_whole() {
    let legacy = ClipTextConfig { eos_token_id: 2, ..clip() };
    let configs = [TextTowerConfig::Clip(clip()), TextTowerConfig::Clip(legacy), bert(BertPooling::Cls)];
    for config in configs.iter().chain([&bert(BertPooling::Mean), &bert(BertPooling::Pooler)]) {
        // A text as long as the context keeps the second batch from being cut.
        let (cut, cut_gradients) = run(config, &texts(&[5, 3, 7]), 3);
        let (whole, whole_gradients) = run(config, &texts(&[5, 3, 7, 16]), 3);
        // Two layers of products in f32, in batches of other shapes: some roundings of the largest numbers.
        assert!(cut.allclose(&whole, 0.0, 1e-5, false), "{config:?}");
        for (cut, whole) in cut_gradients.iter().zip(&whole_gradients) {
            let scale = whole.abs().max().double_value(&[]).max(1.0);
            assert!((cut - whole).abs().max().double_value(&[]) <= 1e-5 * scale, "{config:?}");
        }
    }
}

#[test]
fn packed_towers_point_where_the_full_ones_do() {
    let siglip = ClipTextConfig { variant: ClipTextVariant::Siglip, ..clip() };
    for config in [TextTowerConfig::Clip(clip()), TextTowerConfig::Clip(siglip), bert(BertPooling::Mean)] {
        let (_vs, mut tower) = build(&config);
        let tokens = texts(&[5, 3, 7, 16]);
        let full = tch::no_grad(|| tower.forward(&tokens));
        tower.pack(Precision::Bf16);
        let packed = tch::no_grad(|| tower.forward(&tokens));
        assert_eq!(packed.kind(), Kind::BFloat16);
        let cosine =
            Tensor::cosine_similarity(&full, &packed.to_kind(Kind::Float), 1, 1e-8).min().double_value(&[]);
        assert!(cosine >= 0.999, "{config:?}: {cosine}");
    }
}

#[test]
fn an_empty_batch_gives_no_vectors() {
    for config in [TextTowerConfig::Clip(clip()), bert(BertPooling::Mean)] {
        let (_vs, tower) = build(&config);
        assert_eq!(tower.forward(&texts(&[])).size(), [0, 32]);
    }
}

#[test]
fn sizes_that_make_no_tower_are_refused() {
    let refused = |config: ClipTextConfig| match TextTowerConfig::Clip(config).validate() {
        Err(Error::Config(reason)) => reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        refused(ClipTextConfig { num_attention_heads: 5, ..clip() }),
        "hidden_size 32 is no multiple of num_attention_heads 5"
    );
    assert_eq!(
        refused(ClipTextConfig { num_hidden_layers: 0, ..clip() }),
        "num_hidden_layers is 0: it must be from 1 to 1024"
    );
    assert_eq!(
        refused(ClipTextConfig { eos_token_id: 100, ..clip() }),
        "eos_token_id = 100 is outside vocab_size = 100"
    );
    assert!(refused(ClipTextConfig { projection_size: Some(8), ..clip() }).contains("siglip"));
}

#[test]
fn a_config_names_its_kind_and_no_unknown_field() {
    let parse = serde_json::from_str::<TextTowerConfig>;
    assert_eq!(parse(r#"{"kind":"clip"}"#).unwrap(), TextTowerConfig::Clip(ClipTextConfig::default()));
    assert_eq!(parse(r#"{"kind":"bert","pooling":"mean"}"#).unwrap().context_length(), 512);
    assert!(parse(r#"{"kind":"clip","hiden_size":3}"#).unwrap_err().to_string().contains("hiden_size"));
    assert!(parse(r#"{"kind":"lstm"}"#).is_err());
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let tokenizer = train_bpe(["a cat".to_owned()].into_iter(), 600, 16).unwrap();
    let fitting = ClipTextConfig {
        vocab_size: tokenizer.vocab_size() as i64,
        eos_token_id: i64::from(tokenizer.eos_id()),
        ..clip()
    };
    let refused = |config: ClipTextConfig| match TextTowerConfig::Clip(config).check_tokenizer(&tokenizer) {
        Err(Error::Mismatch(reason)) => reason,
        other => panic!("{other:?}"),
    };
    TextTowerConfig::Clip(fitting.clone()).check_tokenizer(&tokenizer).unwrap();
    assert!(refused(ClipTextConfig { vocab_size: 100, ..fitting.clone() }).contains("embedding 100 rows"));
    assert!(
        refused(ClipTextConfig { max_position_embeddings: 15, ..fitting.clone() }).contains("15 positions")
    );
    assert!(refused(ClipTextConfig { eos_token_id: 3, ..fitting }).contains("eos_token_id 3"));
}

#[test]
fn every_parameter_has_a_depth_and_decays_unless_it_is_a_position_embedding() {
    let siglip = ClipTextConfig { variant: ClipTextVariant::Siglip, ..clip() };
    for (config, position_embedding) in [
        (TextTowerConfig::Clip(clip()), "embeddings.position_embedding.weight"),
        (TextTowerConfig::Clip(siglip), "embeddings.position_embedding.weight"),
        (bert(BertPooling::Pooler), "embeddings.position_embeddings.weight"),
    ] {
        let (vs, _) = build(&config);
        let names: Vec<String> = vs.variables().into_keys().collect();
        for depth in 0..=config.blocks() {
            assert!(names.iter().any(|name| config.depth(name) == depth), "{config:?}: none at {depth}");
        }
        assert!(names.iter().all(|name| config.depth(name) <= config.blocks()), "{config:?}");
        assert_eq!(config.depth(position_embedding), 0);
        let exempt: Vec<&String> = names.iter().filter(|name| !config.has_weight_decay(name)).collect();
        assert_eq!(exempt, [position_embedding]);
    }
}
