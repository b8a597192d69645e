//! N processes train and evaluate as one does.

use crate::common::{model_weights, write_config};
use crate::ranks::{LIMIT, error, losses, outputs, rank_command, send, start, success, wait_for_first_step};
use mm_core::checkpoint::Weights;
use std::path::Path;
use std::process::Command;

/// Options that make the small run fit for comparing: nothing is drawn within a step, as N processes draw
/// other numbers than one.
const EXACT: [&str; 6] = [
    "--set",
    "model.image.patch_dropout=0.0",
    "--set",
    "train.checkpoint_every=25",
    "--set",
    "train.steps=50",
];

/// Trains as `world` processes in `folder` and gives the run's folder.
fn train(folder: &Path, config: &Path, name: &str, options: &[&str], world: usize) -> std::path::PathBuf {
    let run = format!("run.name={name}-{world}");
    let sets = options.iter().flat_map(|option| ["--set", option]);
    let arguments: Vec<&str> =
        ["train", config.to_str().unwrap(), "--set", &run].into_iter().chain(EXACT).chain(sets).collect();
    success(&arguments, world);
    folder.join(format!("{name}-{world}"))
}

pub fn assert_same_losses(one: &Path, other: &Path) {
    let (one, others) = (losses(one), losses(other));
    assert_eq!(one.len(), others.len());
    for (step, (a, b)) in one.iter().zip(&others).enumerate() {
        assert!((a - b).abs() <= 1e-5 * a.abs(), "step {}: {a} and {b} ({})", step + 1, other.display());
    }
}

pub fn assert_same_weights(one: &Path, other: &Path) {
    let open = |run: &Path| Weights::open(&model_weights(run)).unwrap();
    let ours = open(one);
    let theirs = open(other);
    for info in open(one).list() {
        let a = ours.tensor(&info.name).unwrap();
        let b = theirs.tensor(&info.name).unwrap();
        let difference = (a - b).abs().max().double_value(&[]);
        assert!(difference <= 1e-4, "{} differs by {difference} ({})", info.name, other.display());
    }
}

/// Whatever `options` say, 1, 2 and 4 processes give the losses and weights of one process with `reference`.
fn assert_alike(reference: &[&str], variants: &[(&str, &[&str])]) {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let expected = train(folder.path(), &config, "reference", reference, 1);
    for (name, options) in variants {
        let options: Vec<&str> = reference.iter().chain(*options).copied().collect();
        for world in [1, 2, 4] {
            let run = train(folder.path(), &config, name, &options, world);
            assert_same_losses(&expected, &run);
            assert_same_weights(&expected, &run);
        }
    }
}

#[test]
fn processes_train_with_info_nce_as_one_does() {
    let variants: [(&str, &[&str]); 6] = [
        ("gathered", &["loss.logits=gathered"]),
        ("local", &["loss.logits=local"]),
        ("tiled", &["loss.logits=tiled", "loss.tile=3"]),
        ("grad-cache", &["loss.grad_cache_chunk=3"]),
        ("sharded", &["train.shard_optimizer=true"]),
        (
            "recomputed",
            &["train.gradient_checkpointing=true", "loss.logits=tiled", "loss.grad_cache_chunk=2"],
        ),
    ];
    assert_alike(&[], &variants);
}

#[test]
fn processes_train_with_siglip_as_one_does() {
    let variants: [(&str, &[&str]); 3] = [
        ("gathered", &["loss.logits=gathered"]),
        ("local", &["loss.logits=local", "train.shard_optimizer=true"]),
        ("tiled", &["loss.logits=tiled", "loss.tile=5", "loss.grad_cache_chunk=3"]),
    ];
    assert_alike(&["model.loss=siglip"], &variants);
}

#[test]
fn processes_accumulate_as_one_does() {
    let variants: [(&str, &[&str]); 2] = [
        ("local", &["loss.logits=local"]),
        ("sharded", &["train.shard_optimizer=true", "loss.grad_cache_chunk=1"]),
    ];
    assert_alike(&["train.accumulate=4"], &variants);
}

#[test]
fn a_resnets_batch_norm_is_over_the_batch_of_all_processes() {
    let image = "model.image={kind='resnet', depth=18, width=8, image_size=32}";
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let run = |world: usize| {
        let name = format!("run.name=resnet-{world}");
        let sets = [image, "train.steps=10", "train.lr=1e-4", &name]
            .into_iter()
            .flat_map(|option| ["--set", option]);
        success(&["train", config.to_str().unwrap()].into_iter().chain(sets).collect::<Vec<_>>(), world);
        folder.path().join(format!("resnet-{world}"))
    };
    let (one, two) = (run(1), run(2));
    for (a, b) in losses(&one).iter().zip(losses(&two)) {
        assert!((a - b).abs() <= 1e-4 * a.abs(), "{a} and {b}");
    }
    assert_same_weights(&one, &two);
}

#[test]
fn a_checkpoint_of_two_processes_goes_on_with_one_and_with_four() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let sharded = "train.shard_optimizer=true";
    let straight = train(folder.path(), &config, "straight", &[], 1);
    let two = train(folder.path(), &config, "two", &[sharded], 2);
    for world in [1, 4, 2] {
        let checkpoint = two.join("checkpoints/step-25");
        let name = format!("run.name=on-{world}");
        let mut arguments = vec!["train", config.to_str().unwrap(), "--resume", checkpoint.to_str().unwrap()];
        arguments.extend(EXACT);
        arguments.extend(["--set", &name, "--set", sharded]);
        success(&arguments, world);
        let run = folder.path().join(format!("on-{world}"));
        for (expected, loss) in losses(&straight)[25..].iter().zip(losses(&run)) {
            assert!((expected - loss).abs() <= 1e-5 * expected, "{expected} and {loss} with {world}");
        }
        assert_same_weights(&straight, &run);
        if world == 2 {
            let read =
                |run: &Path| std::fs::read(run.join("checkpoints/step-50/optimizer.safetensors")).unwrap();
            assert_eq!(read(&two), read(&run), "as many processes go on bit for bit");
        }
    }
}

#[test]
fn evaluation_is_shared_and_its_numbers_are_one_processs() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let run = train(folder.path(), &config, "run", &[], 1);
    let evaluate =
        |world| success(&["eval", run.to_str().unwrap(), "--json", "--set", "eval.batch_size=50"], world);
    let one = evaluate(1);
    assert!(one.contains("\"samples\": 394"), "{one}");
    for world in [2, 3] {
        assert_eq!(one, evaluate(world));
    }
}

#[test]
fn ctrl_c_in_one_process_stops_all_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let mut children = start(&["train", config.to_str().unwrap(), "--set", "train.steps=100000"], 2);
    wait_for_first_step(&mut children, &folder.path().join("small"));
    send(&children[1], "INT");
    let outputs = outputs(children, LIMIT);
    assert!(outputs.iter().all(|output| output.status.code() == Some(130)), "{outputs:?}");
    assert!(folder.path().join("small/checkpoints/latest/state.json").is_file());
}

/// Runs `ip`, which must succeed.
fn ip(arguments: &str) -> bool {
    Command::new("ip").args(arguments.split(' ')).output().is_ok_and(|output| output.status.success())
}

/// Two network namespaces that only see each other.
struct TwoNodes([String; 2]);

impl TwoNodes {
    fn new() -> Option<Self> {
        let id = std::process::id();
        let nodes = Self([format!("mm-a-{id}"), format!("mm-b-{id}")]);
        let [a, b] = &nodes.0;
        let (x, y) = (format!("mma{id}"), format!("mmb{id}"));
        let made = ip(&format!("netns add {a}"))
            && ip(&format!("netns add {b}"))
            && ip(&format!("link add {x} netns {a} type veth peer name {y} netns {b}"))
            && ip(&format!("-n {a} addr add 10.213.7.1/24 dev {x}"))
            && ip(&format!("-n {b} addr add 10.213.7.2/24 dev {y}"))
            && [(a, &x), (b, &y)].iter().all(|(node, link)| {
                ip(&format!("-n {node} link set {link} up")) && ip(&format!("-n {node} link set lo up"))
            });
        made.then_some(nodes)
    }
}

impl Drop for TwoNodes {
    fn drop(&mut self) {
        self.0.iter().for_each(|node| {
            ip(&format!("netns del {node}"));
        });
    }
}

#[test]
fn two_nodes_of_two_processes_train_as_one_process() {
    let Some(nodes) = TwoNodes::new() else {
        eprintln!("skipped: making network namespaces is not allowed here");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path());
    let expected = train(folder.path(), &config, "one", &[], 1);
    let arguments: Vec<&str> =
        ["train", config.to_str().unwrap(), "--set", "run.name=nodes"].into_iter().chain(EXACT).collect();
    let children = (0..4).map(|rank| {
        let on_node = rank_command(&arguments, rank, 4, 29500);
        let link = format!("mm{}{}", ["a", "b"][rank / 2], std::process::id());
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &nodes.0[rank / 2]])
            .arg(on_node.get_program())
            .args(on_node.get_args());
        command.envs(on_node.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("MASTER_ADDR", "10.213.7.1").env("LOCAL_RANK", (rank % 2).to_string());
        command.env("GLOO_SOCKET_IFNAME", link).stderr(std::process::Stdio::piped()).spawn().unwrap()
    });
    let outputs = outputs(children.collect(), LIMIT);
    assert!(
        outputs.iter().all(|output| output.status.success()),
        "{:?}",
        outputs.iter().map(error).collect::<Vec<_>>()
    );
    assert_same_losses(&expected, &folder.path().join("nodes"));
}
