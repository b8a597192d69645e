//! One switch reaches every transformer of a CLIP, and changes no gradient.

use mm_clip::{Clip, ClipConfig, ClipTask};
use mm_core::Precision;
use mm_core::config::ConfigFile;
use mm_data::Dataset;
use mm_dist::{Contrastive, ContrastiveConfig, ProcessGroup};
use mm_text::{BertConfig, BertPooling, ClipTextConfig, ClipTextVariant, TextTowerConfig, TokenBatch};
use mm_train::{Task, TaskConfig, TaskContext, TrainingData, read_config};
use mm_vision::{ImageTowerConfig, VitConfig, VitVariant};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tch::nn::VarStore;
use tch::{Device, Tensor};

/// libtorch's CPU generator is one a process: tests that draw from it take turns.
static GENERATOR: Mutex<()> = Mutex::new(());

const EOS: i64 = 9;

fn image_towers() -> Vec<ImageTowerConfig> {
    let vit = |variant| {
        let sizes =
            VitConfig { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 3, ..Default::default() };
        let config = VitConfig { variant, num_attention_heads: 2, image_size: 32, patch_size: 8, ..sizes };
        ImageTowerConfig::Vit(VitConfig { patch_dropout: 0.5, ..config })
    };
    [VitVariant::Clip, VitVariant::Siglip, VitVariant::Vit].map(vit).into()
}

fn text_towers() -> Vec<TextTowerConfig> {
    let clip = |variant| {
        let sizes = ClipTextConfig {
            hidden_size: 16,
            intermediate_size: 32,
            num_hidden_layers: 3,
            ..Default::default()
        };
        let context = ClipTextConfig { max_position_embeddings: 6, num_attention_heads: 2, ..sizes };
        TextTowerConfig::Clip(ClipTextConfig { variant, vocab_size: 10, eos_token_id: EOS, ..context })
    };
    let bert = |pooling| {
        let sizes =
            BertConfig { hidden_size: 16, intermediate_size: 32, num_hidden_layers: 3, ..Default::default() };
        let context = BertConfig { max_position_embeddings: 6, num_attention_heads: 2, ..sizes };
        TextTowerConfig::Bert(BertConfig { pooling, vocab_size: 10, ..context })
    };
    let clips = [ClipTextVariant::Clip, ClipTextVariant::Siglip].map(clip);
    let berts = [BertPooling::Cls, BertPooling::Mean, BertPooling::Pooler].map(bert);
    clips.into_iter().chain(berts).collect()
}

/// The loss of two pairs, the same patches dropped each time.
fn loss(clip: &Clip, precision: Precision) -> Tensor {
    tch::manual_seed(4);
    let pixel_values = mm_testing::normal(4, &[2, 3, 32, 32]);
    let input_ids = Tensor::from_slice(&[1, 2, 3, EOS, 0, 0, 4, 5, 6, 7, 8, EOS]).view([2, 6]);
    let attention_mask = Tensor::from_slice(&[1i64, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]).view([2, 6]);
    let contrastive = Contrastive::new(&ProcessGroup::alone(), ContrastiveConfig::default());
    precision.autocast(Device::Cpu, || {
        let image_embeds = clip.image.encode(&pixel_values, true);
        let text_embeds = clip.text.encode(&TokenBatch { input_ids, attention_mask });
        clip.head.loss(&contrastive, &image_embeds, &text_embeds).unwrap()
    })
}

/// Whether gradients of chosen inputs cannot pass, which they cannot where there is a checkpoint on the way.
fn is_checkpointed(loss: &Tensor, parameter: &Tensor) -> bool {
    match Tensor::f_run_backward(&[loss], &[parameter], false, false) {
        Ok(_) => false,
        Err(error) if error.to_string().contains("chosen inputs") => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_tower_is_checkpointed_and_learns_the_same() {
    let _turn = GENERATOR.lock();
    for (image, text) in image_towers().into_iter().cycle().zip(text_towers()) {
        for precision in [Precision::F32, Precision::Bf16] {
            let [plain, checkpointed] = [false, true].map(|on| {
                let vs = VarStore::new(Device::Cpu);
                let mut config = ClipConfig::new(16, image.clone(), text.clone());
                config.set_gradient_checkpointing(on);
                let clip = Clip::new(&vs.root(), &config).unwrap();
                mm_testing::initialize(&vs, 6);
                let mut tables = vs.variables();
                tables.retain(|name, _| name.contains("embeddings.position_embedding"));
                assert_eq!(tables.len(), 2, "one of each tower");
                for (name, table) in tables {
                    assert_eq!(is_checkpointed(&loss(&clip, precision), &table), on, "{name}");
                }
                gradients(&vs, &loss(&clip, precision))
            });
            assert!(plain == checkpointed, "{image:?}, {text:?}, {precision:?}");
        }
    }
}

/// The gradients of `loss` by name, for the parameters that have one.
fn gradients(vs: &VarStore, loss: &Tensor) -> BTreeMap<String, Tensor> {
    let mut parameters = vs.variables();
    parameters.values_mut().for_each(Tensor::zero_grad);
    loss.backward();
    let gradients = parameters.into_iter().map(|(name, parameter)| (name, parameter.grad()));
    gradients
        .filter(|(_, gradient)| gradient.defined())
        .map(|(name, gradient)| (name, gradient.copy()))
        .collect()
}

const CONFIG: &str = r#"
[run]
task = "clip"
name = "tiny"

[model]
embed_dim = 16
image.kind = "vit"
image.image_size = 32
image.patch_size = 16
image.hidden_size = 16
image.intermediate_size = 32
image.num_hidden_layers = 2
image.num_attention_heads = 2
text.kind = "clip"
text.hidden_size = 16
text.intermediate_size = 32
text.num_hidden_layers = 2
text.num_attention_heads = 2
text.max_position_embeddings = 24
lock_image = { unlocked_groups = 2 }

[tokenizer]
vocab_size = 1024

[data]
train = { kind = "emoji", split = "train" }

[train]
steps = 1
batch_size = 4
lr = 1e-3
"#;

#[test]
fn the_config_switches_it_and_locked_groups_stay_locked() {
    let _turn = GENERATOR.lock();
    let [plain, checkpointed] = [false, true].map(|on| {
        let key = format!("train.gradient_checkpointing={on}");
        let mut file = ConfigFile::from_text("tiny.toml", CONFIG, &[key]).unwrap();
        let config = read_config::<ClipTask>(&mut file).unwrap();
        let dataset: Arc<dyn Dataset> = config.data.train.open().unwrap().into();
        let group = ProcessGroup::alone();
        let context = TaskContext::new(Device::Cpu, &group, &dataset);
        let mut task = ClipTask::new(&config, &context).unwrap();
        let mut data = TrainingData::new(dataset, config.shared(), &group, task.preprocess());
        let batch = task.next_batch(&mut data, Precision::F32).unwrap();
        let parameters = task.variables().variables();
        let first = &parameters["text_model.embeddings.token_embedding.weight"];
        assert_eq!(is_checkpointed(&task.loss(&batch).unwrap().total, first), on);
        gradients(task.variables(), &task.loss(&batch).unwrap().total)
    });
    assert!(plain.contains_key("vision_model.encoder.layers.1.mlp.fc1.weight"));
    assert!(!plain.contains_key("vision_model.encoder.layers.0.mlp.fc1.weight"));
    assert!(plain == checkpointed);
}
