//! The lines that errors print for pickled weights, run by the Python that `MM_PEER_PYTHON` names, which
//! needs torch and safetensors.

use crate::folders::golden;
use mm_clip::ModelFolder;
use std::path::Path;
use std::process::Command;

/// Saves the golden weights as each program does that saves pickles: the first argument is the file of
/// weights, the second the folder to fill, the third the kind.
const SAVE: &str = r#"
import sys, torch, safetensors.torch
weights, folder, kind = sys.argv[1:]
tensors = safetensors.torch.load_file(weights)
if kind == "open_clip":
    state = {"module." + name: tensor for name, tensor in tensors.items()}
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))]).state_dict()
    checkpoint = {"epoch": 1, "name": "run", "state_dict": state, "optimizer": optimizer}
    torch.save(checkpoint, folder + "/epoch_1.pt")
elif kind == "open_clip on the hub":
    torch.save(tensors, folder + "/open_clip_pytorch_model.bin")
elif kind == "openai":
    class Part(torch.nn.Module):
        pass
    class Whole(torch.nn.Module):
        def forward(self, x):
            return x
    whole = Whole()
    for name, tensor in tensors.items():
        part, path = whole, name.split(".")
        for step in path[:-1]:
            if not hasattr(part, step):
                part.add_module(step, Part())
            part = getattr(part, step)
        part.register_buffer(path[-1], tensor)
    whole.register_buffer("input_resolution", torch.tensor(32))
    torch.jit.save(torch.jit.script(whole), folder + "/ViT.pt")
elif kind == "shards":
    names = sorted(tensors)
    for number, part in enumerate([names[::2], names[1::2]], 1):
        torch.save({name: tensors[name] for name in part},
                   f"{folder}/pytorch_model-0000{number}-of-00002.bin")
elif kind == "legacy":
    def by_columns(tensor):
        return tensor.T.contiguous().T if tensor.dim() == 2 else tensor
    tensors = {name: by_columns(tensor) for name, tensor in tensors.items()}
    torch.save(tensors, folder + "/pytorch_model.bin", _use_new_zipfile_serialization=False)
"#;

#[test]
fn the_line_for_each_kind_of_pickle_converts_it() {
    let Some(python) = std::env::var_os("MM_PEER_PYTHON") else {
        println!("skipped: MM_PEER_PYTHON names no Python with torch and safetensors");
        return;
    };
    for (kind, name, weights, config) in [
        ("open_clip", "open-clip-vit", "open_clip_model.safetensors", Some("open_clip_config.json")),
        (
            "open_clip on the hub",
            "open-clip-biomed",
            "open_clip_model.safetensors",
            Some("open_clip_config.json"),
        ),
        ("openai", "openai-vit", "model.safetensors", None),
        ("shards", "clip", "model.safetensors", Some("config.json")),
        ("legacy", "clip", "model.safetensors", Some("config.json")),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let from = golden(name);
        if let Some(config) = config {
            std::fs::copy(from.join(config), folder.path().join(config)).unwrap();
        }
        let script = tempfile::NamedTempFile::new().unwrap(); // TorchScript compiles from a file alone
        std::fs::write(&script, SAVE).unwrap();
        let mut save = Command::new(&python);
        save.arg(script.path()).arg(from.join(weights)).arg(folder.path()).arg(kind);
        assert!(save.status().unwrap().success(), "{kind}");
        let open = |folder: &Path| ModelFolder::open(folder.to_str().unwrap());
        let message = open(folder.path()).unwrap_err().to_string();
        let (_, line) = message.split_once("python -c ").unwrap_or_else(|| panic!("{kind}: {message}"));
        let line = format!("\"$MM_PEER_PYTHON\" -c {line}");
        let run = Command::new("sh").args(["-c", &line]).current_dir(folder.path()).output().unwrap();
        assert!(run.status.success(), "{kind}: {line}: {}", String::from_utf8_lossy(&run.stderr));
        let converted = open(folder.path()).unwrap();
        let original = open(&from).unwrap();
        assert_eq!(converted.architecture, original.architecture, "{kind}");
        for tensor in original.weights.list() {
            let before = original.weights.tensor(&tensor.name).unwrap();
            let after = converted.weights.tensor(&tensor.name).unwrap();
            assert!(before.equal(&after), "{kind}: {}", tensor.name);
        }
    }
}
