//! The workspace's folder, and how programs are started from it.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fmt, io};

use anyhow::{Context, Result, bail};

use crate::libtorch::Libtorch;

/// The checkout that this xtask belongs to.
pub struct Workspace {
    root: PathBuf,
}

/// A program failed and printed its own error: xtask adds no second error line and ends with its exit code.
#[derive(Debug)]
pub struct Ended(pub u8);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "ended with exit code {}", self.0)
    }
}

impl std::error::Error for Ended {}

impl Workspace {
    /// The checkout of the running `cargo xtask`; without cargo, the one that xtask was built in.
    pub fn find() -> Self {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let xtask = PathBuf::from(manifest);
        Self { root: xtask.parent().unwrap_or(&xtask).to_path_buf() }
    }

    /// A path given relative to the workspace's root.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// A path for messages: relative to the root where it is inside.
    pub fn show<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }

    /// `cargo` in the workspace, with the environment that it has when a user starts it.
    ///
    /// The variables that `cargo xtask` itself adds are removed: a build script that depends on one of them
    /// would run again, and torch-sys takes minutes.
    pub fn cargo(&self, libtorch: Option<&Libtorch>) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(&self.root);
        let from_cargo = |name: &str| {
            name.starts_with("CARGO_PKG_")
                || name.starts_with("CARGO_MANIFEST_")
                || name.starts_with("CARGO_BIN_")
        };
        for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(from_cargo)) {
            cargo.env_remove(name);
        }
        if env::var_os("LIBTORCH").is_some_and(|given| Path::new(&given) == self.path(".libtorch/torch")) {
            cargo.env_remove("LIBTORCH");
        }
        if let Some(libtorch) = libtorch {
            cargo.env("LD_LIBRARY_PATH", loader_path(libtorch));
        }
        cargo
    }

    /// A built program that links libtorch, started in the user's folder.
    pub fn program(&self, executable: &Path, libtorch: &Libtorch) -> Command {
        let mut command = Command::new(executable);
        command.env("LD_LIBRARY_PATH", loader_path(libtorch));
        command
    }

    /// Builds one binary or example in the release profile and returns its path.
    pub fn build(&self, libtorch: &Libtorch, package: &str, target: &[&str]) -> Result<PathBuf> {
        let mut cargo = self.cargo(Some(libtorch));
        cargo.args(["build", "--release", "--package", package]).args(target);
        let output = cargo
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        if !output.status.success() {
            bail!("the build of {package} failed: see cargo's messages above");
        }
        let name = target.last().copied().unwrap_or(package);
        executable_in(&output.stdout, name)
            .with_context(|| format!("cargo built {package} but no program {name}"))
    }
}

/// A script of `xtask/peers` in the user's Python, without network access, and without the loader path of
/// cargo and libtorch, which must not reach the peers' own torch.
pub fn peer_script(python: &Path, script: &Path) -> Command {
    let mut command = Command::new(python);
    command.arg(script).env_remove("LD_LIBRARY_PATH").env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs a command to its end.
///
/// # Errors
/// [`Ended`] where it exits with another code than 0; any other where it cannot be started or is killed.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| cannot_start(command))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(code) => Err(Ended(code.clamp(1, 255) as u8).into()),
        None => bail!("{} was killed ({status})", command.get_program().display()),
    }
}

/// The standard output of a program.
///
/// # Errors
/// The program fails: `failure` with the last line of its standard error.
pub fn stdout_of(command: &mut Command, failure: &str) -> Result<String> {
    let output = command.output().with_context(|| cannot_start(command))?;
    if !output.status.success() {
        bail!("{failure}: {}", last_line(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last line of a program's output, where Python writes the reason of a failure.
pub fn last_line(written: &[u8]) -> String {
    String::from_utf8_lossy(written).trim().lines().last().unwrap_or("no reason given").to_owned()
}

/// Replaces this process by the command, so that it gets the user's signals and gives its own exit code.
pub fn exec(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt;
    let error = command.exec();
    Err(error).with_context(|| cannot_start(command))
}

/// True where a command cannot be started because there is no such program.
pub fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start {}", command.get_program().display())
}

fn loader_path(libtorch: &Libtorch) -> OsString {
    let lib = libtorch.lib();
    let before = env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let rest =
        env::split_paths(&before).filter(|folder| folder.as_os_str() != OsStr::new("") && *folder != lib);
    env::join_paths(std::iter::once(lib.clone()).chain(rest)).unwrap_or_else(|_| lib.into_os_string())
}

fn executable_in(messages: &[u8], name: &str) -> Option<PathBuf> {
    let mut artifacts = messages.split(|&byte| byte == b'\n').filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        let executable = message["executable"].as_str()?;
        (message["target"]["name"] == name).then(|| PathBuf::from(executable))
    });
    artifacts.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_is_read_from_cargos_messages() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"mm_core"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"mm"},"executable":"/elsewhere/release/mm"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable_in(messages, "mm"), Some("/elsewhere/release/mm".into()));
        assert_eq!(executable_in(messages, "mm_core"), None);
    }

    #[test]
    fn a_failed_program_gives_its_own_exit_code() {
        let error = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(error.downcast_ref::<Ended>().map(|ended| ended.0), Some(3));
    }
}
