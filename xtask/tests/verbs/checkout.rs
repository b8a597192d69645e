//! A checkout whose programs are scripts of the test.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::script;

/// A configuration with all that xtask reads.
pub const CONFIG: &str = "[run]\nname = \"tiny\"\n\n[data]\neval.held_out = { kind = \"emoji\" }\n";

/// The checkout's folder, removed when it is dropped.
pub struct Checkout {
    folder: tempfile::TempDir,
}

impl Checkout {
    /// A checkout with libtorch and the demo's configuration. Its programs write their arguments to `calls`.
    pub fn new() -> Self {
        let checkout = Self { folder: tempfile::tempdir().unwrap() };
        for folder in ["xtask/goldens", "bin", ".libtorch/torch/lib", ".libtorch/torch/include"] {
            fs::create_dir_all(checkout.path(folder)).unwrap();
        }
        for file in ["lib/libtorch_cpu.so", "lib/libc10.so"] {
            fs::write(checkout.path(".libtorch/torch").join(file), "").unwrap();
        }
        fs::write(checkout.path(".libtorch/torch/build-version"), "2.13.0").unwrap();
        fs::create_dir_all(checkout.path("configs/clip")).unwrap();
        fs::write(checkout.path("configs/clip/emoji-vit-tiny.toml"), CONFIG).unwrap();
        let mm = checkout.path("bin/mm");
        let message = format!(r#"{{"executable":"{}","target":{{"name":"mm"}}}}"#, mm.display());
        checkout.program(
            "cargo",
            &format!("case $1 in build) echo '{message}';; *) echo cargo $* >> calls;; esac"),
        );
        checkout.program("mm", "echo mm $* >> calls");
        checkout
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn program(&self, name: &str, script: &str) {
        script::write(&self.path("bin").join(name), script);
    }

    pub fn xtask(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// xtask in the checkout, to be started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(self.path("")).args(args);
        command.env_remove("LIBTORCH_USE_PYTORCH").env("LIBTORCH", self.path(".libtorch/torch"));
        command.env("CARGO_MANIFEST_DIR", self.path("xtask")).env("CARGO", self.path("bin/cargo"));
        command
    }

    pub fn calls(&self) -> String {
        fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

pub fn last_error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned()
}
