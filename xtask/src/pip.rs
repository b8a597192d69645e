//! pip, the one thing of Python that setup needs, and what its failures mean.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::libtorch::VERSION;
use crate::workspace::is_absent;

const OLDEST_PYTHON: (u32, u32) = (3, 10);

/// A Python with a working pip.
pub struct Pip {
    python: PathBuf,
    version: String,
}

impl Pip {
    /// Checks that the Python is there, new enough, and has pip.
    pub fn find(python: &Path) -> Result<Self> {
        let name = python.display();
        let otherwise = format!("or set LIBTORCH to a libtorch {VERSION}");
        let output = match Command::new(python)
            .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
            .output()
        {
            Err(error) if is_absent(&error) => bail!(
                "{name} is not on the PATH; pip downloads libtorch: install Python 3.10 or newer with pip, {otherwise}"
            ),
            answer => answer.with_context(|| format!("cannot start {name}"))?,
        };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if parsed(&version).is_none_or(|version| version < OLDEST_PYTHON) {
            let shown = if version.is_empty() { "broken" } else { &version };
            bail!(
                "{name} is {shown}, and libtorch's wheel needs 3.10 or newer: name another with --python, {otherwise}"
            );
        }
        let pip = Command::new(python).args(["-m", "pip", "--version"]).output();
        if !pip.is_ok_and(|output| output.status.success()) {
            bail!(
                "{name} has no pip: install it (`{name} -m ensurepip`, or your system's python3-pip) and run again, {otherwise}"
            );
        }
        Ok(Self { python: python.to_path_buf(), version })
    }

    /// Installs packages into a folder of their own, with or without what they depend on.
    pub fn install(&self, target: &Path, packages: &[&str], dependencies: bool) -> Result<()> {
        // pip unpacks in TMPDIR and then moves: in the target it is one file system, and a small /tmp is no matter.
        let temporary = target.join("tmp");
        std::fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", "install", "--no-input", "--no-compile", "--disable-pip-version-check", "--target"])
            .arg(target);
        if !dependencies {
            pip.arg("--no-deps");
        }
        // A user's pip.conf may ask for what --target forbids; a torn download goes on where it stopped (pip 25.1 and later).
        pip.envs([
            ("PIP_USER", "0"),
            ("PIP_REQUIRE_VIRTUALENV", "0"),
            ("PIP_RESUME_RETRIES", "5"),
            ("PIP_ROOT_USER_ACTION", "ignore"),
        ]);
        pip.env("TMPDIR", &temporary).args(packages);
        let mut child = pip.stdout(std::io::stderr()).stderr(Stdio::piped()).spawn().context("cannot start pip")?;
        let mut said = String::new();
        for line in BufReader::new(child.stderr.take().context("pip has no stderr")?).lines() {
            let line = line.context("cannot read pip's messages")?;
            eprintln!("{line}");
            said.push_str(&line);
            said.push('\n');
        }
        if !child.wait().context("cannot wait for pip")?.success() {
            bail!("{}", self.explain(&said));
        }
        Ok(())
    }

    fn explain(&self, said: &str) -> String {
        let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
        let (python, version) = (self.python.display(), &self.version);
        if says(&["No space left on device", "Errno 28"]) {
            return "the disk is full: free some space and run `cargo xtask setup` again".into();
        }
        let network =
            ["NewConnectionError", "NameResolutionError", "ConnectTimeout", "ReadTimeout", "ProxyError", "SSLError"];
        if says(&network)
            || says(&["Failed to establish a new connection", "Read timed out", "Connection reset", "IncompleteRead"])
        {
            let remedy = "check the network or proxy and run `cargo xtask setup` again";
            return format!("pip cannot reach its package index: {remedy}; whole downloads are kept in pip's cache");
        }
        if says(&["No matching distribution found", "is not a supported wheel"]) {
            return format!(
                "pip of {python} {version} finds no torch {VERSION} wheel for this Python and machine: name a Python 3.10 to 3.14 with --python"
            );
        }
        let reason = said.lines().rev().find(|line| line.contains("ERROR")).unwrap_or("no reason given").trim();
        format!("pip stopped half way ({reason}): nothing was left behind; run `cargo xtask setup` again")
    }
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
