//! A machine whose programs are scripts of the test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::script;

/// An empty checkout, and a folder of programs that are found before the system's.
pub struct Machine {
    folder: tempfile::TempDir,
    pub system_path: &'static str,
}

impl Machine {
    /// A machine with a Python whose pip runs the script `pip`.
    pub fn new(pip: &str) -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), system_path: "/usr/bin:/bin" };
        fs::create_dir_all(machine.path("work/xtask")).unwrap();
        fs::create_dir_all(machine.path("bin")).unwrap();
        machine.program("python3", &python("3.12", "exit 0", pip));
        machine.program("df", "echo header; echo '/dev/x 9 9 99000000 1% /'");
        machine
    }

    /// A machine whose pip ends with an error.
    pub fn with_failing_pip(message: &str) -> Self {
        Self::new(&format!("mkdir -p work; echo '{message}' >&2; exit 1"))
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn program(&self, name: &str, script: &str) {
        script::write(&self.path("bin").join(name), script);
    }

    pub fn xtask(&self, args: &[&str], variables: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        for name in ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "LIBTORCH_BYPASS_VERSION_CHECK", "VIRTUAL_ENV"] {
            command.env_remove(name);
        }
        command.env("CARGO_MANIFEST_DIR", self.path("work/xtask"));
        command.env("PATH", format!("{}:{}", self.path("bin").display(), self.system_path));
        command.args(args).envs(variables.iter().copied()).output().unwrap()
    }

    /// Runs xtask, which must fail with one error line and leave none of `folders` in the checkout.
    pub fn error(&self, args: &[&str], variables: &[(&str, &Path)], folders: &[&str]) -> String {
        let output = self.xtask(args, variables);
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        let errors: Vec<_> = said.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "{said}");
        assert_eq!(said.lines().last(), Some(errors[0]), "the error is not the last line: {said}");
        for left in folders {
            assert!(!self.path("work").join(left).exists(), "{left} was left behind");
        }
        errors[0].to_owned()
    }
}

/// The script of a python3: its version, `pip --version`, and pip's other commands.
pub fn python(version: &str, pip_version: &str, pip: &str) -> String {
    format!("case \"$*\" in\n-c*) echo {version};;\n*--version) {pip_version};;\n*) {pip}\n;;\nesac")
}
