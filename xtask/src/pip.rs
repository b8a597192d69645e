//! Downloads through pip, with errors that explain pip's failures.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::workspace::is_absent;

const OLDEST_PYTHON: (u32, u32) = (3, 10);
/// Phrases of pip that mean a problem of the network.
const NETWORK: [&str; 10] = [
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "SSLError",
    "Failed to establish a new connection",
    "Read timed out",
    "Connection reset",
    "IncompleteRead",
];

/// What is downloaded, for error messages.
pub struct Purpose {
    /// The name of the download.
    pub what: &'static str,
    /// The package and version that contain it.
    pub wheel: String,
    /// The command to run again.
    pub again: &'static str,
    /// An alternative, after a comma; may be empty.
    pub otherwise: String,
}

/// A Python with a working pip.
pub struct Pip {
    python: PathBuf,
    version: String,
    purpose: Purpose,
}

impl Pip {
    /// Checks that the Python exists, is recent enough and has pip.
    pub fn find(python: &Path, purpose: Purpose) -> Result<Self> {
        let name = python.display();
        let Purpose { what, otherwise, .. } = &purpose;
        let output = match Command::new(python)
            .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
            .output()
        {
            Err(error) if is_absent(&error) => bail!(
                "{name} is not on the PATH, and {what} is downloaded by pip: \
                 install Python 3.10 or newer with pip{otherwise}"
            ),
            answer => answer.with_context(|| format!("cannot start {name}"))?,
        };
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if parsed(&version).is_none_or(|version| version < OLDEST_PYTHON) {
            let shown = if version.is_empty() { "broken" } else { &version };
            bail!(
                "{name} is {shown}, and the download of {what} needs 3.10 or newer: \
                 name another with --python{otherwise}"
            );
        }
        let pip = Command::new(python).args(["-m", "pip", "--version"]).output();
        if !pip.is_ok_and(|output| output.status.success()) {
            bail!(
                "{name} has no pip: install it (`{name} -m ensurepip`, or your system's python3-pip) \
                 and run again{otherwise}"
            );
        }
        Ok(Self { python: python.to_path_buf(), version, purpose })
    }

    /// Installs packages into a folder of their own, with or without their dependencies.
    pub fn install(&self, target: &Path, packages: &[&str], dependencies: bool) -> Result<()> {
        let mut pip = self.command(target, "install")?;
        pip.args(["--no-compile", "--target"]).arg(target);
        if !dependencies {
            pip.arg("--no-deps");
        }
        self.run(pip.args(packages))
    }

    /// Downloads the wheel of one package into a folder, without running any of its code.
    pub fn download(&self, folder: &Path, package: &str) -> Result<()> {
        let mut pip = self.command(folder, "download")?;
        self.run(pip.args(["--no-deps", "--only-binary", ":all:", "--dest"]).arg(folder).arg(package))
    }

    /// Unpacks a zip archive, such as a wheel.
    pub fn unzip(&self, archive: &Path, folder: &Path) -> Result<()> {
        let output =
            Command::new(&self.python).args(["-m", "zipfile", "-e"]).arg(archive).arg(folder).output();
        let output = output.with_context(|| format!("cannot start {}", self.python.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(());
        }
        if is_full(&said) {
            bail!("{}", self.disk_is_full());
        }
        bail!("cannot unpack {}: {}", archive.display(), said.lines().last().unwrap_or("no reason given"))
    }

    fn command(&self, target: &Path, verb: &str) -> Result<Command> {
        // pip unpacks in TMPDIR and then moves the files. Inside the target that is a rename, and the size
        // of /tmp does not matter.
        let temporary = target.join("tmp");
        std::fs::create_dir_all(&temporary)
            .with_context(|| format!("cannot make {}", temporary.display()))?;
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip", verb, "--no-input", "--disable-pip-version-check"]).env("TMPDIR", &temporary);
        // A user's pip.conf may have options that --target forbids. An interrupted download continues where
        // it stopped (pip 25.1 and later).
        pip.envs([
            ("PIP_USER", "0"),
            ("PIP_REQUIRE_VIRTUALENV", "0"),
            ("PIP_RESUME_RETRIES", "5"),
            ("PIP_ROOT_USER_ACTION", "ignore"),
        ]);
        Ok(pip)
    }

    /// Runs pip and shows its messages.
    fn run(&self, pip: &mut Command) -> Result<()> {
        let mut child =
            pip.stdout(std::io::stderr()).stderr(Stdio::piped()).spawn().context("cannot start pip")?;
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

    fn disk_is_full(&self) -> String {
        format!("the disk is full: free some space and run `{}` again", self.purpose.again)
    }

    fn explain(&self, said: &str) -> String {
        let says = |phrases: &[&str]| phrases.iter().any(|phrase| said.contains(phrase));
        let (python, version) = (self.python.display(), &self.version);
        let Purpose { wheel, again, .. } = &self.purpose;
        if is_full(said) {
            return self.disk_is_full();
        }
        if says(&NETWORK) {
            return format!(
                "pip cannot reach its package index: check the network or proxy and run `{again}` again; \
                 complete downloads are kept in pip's cache"
            );
        }
        if says(&["No matching distribution found", "is not a supported wheel"]) {
            return format!(
                "pip of {python} {version} finds no {wheel} wheel for this Python and machine: \
                 name a Python 3.10 to 3.14 with --python"
            );
        }
        let reason =
            said.lines().rev().find(|line| line.contains("ERROR")).unwrap_or("no reason given").trim();
        format!("pip failed ({reason}); the incomplete download is removed: run `{again}` again")
    }
}

fn is_full(said: &str) -> bool {
    said.contains("No space left on device") || said.contains("Errno 28")
}

fn parsed(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
