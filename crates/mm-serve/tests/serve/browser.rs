//! The page in a real browser, where Node, npm and Chromium are installed; `tests/browser` has the flows.

use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");

/// The programs that the test needs, or the first one that is missing.
fn find_chromium() -> Result<PathBuf, String> {
    let found = |program: &str| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|file| file.is_file())
    };
    for program in ["node", "npm"] {
        found(program).ok_or_else(|| format!("{program} is not installed"))?;
    }
    found("chromium").ok_or_else(|| "chromium is not installed".to_owned())
}

/// Installs `playwright-core` into `folder`, unless an earlier run has.
fn install(folder: &Path) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let package = folder.join("package.json");
    std::fs::copy(Path::new(SCRIPTS).join("package.json"), &package).map_err(|error| error.to_string())?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-audit", "--no-fund", "--prefer-offline", "--prefix"]).arg(folder);
    let installed = npm.output().map_err(|error| error.to_string())?;
    let message = String::from_utf8_lossy(&installed.stderr);
    let first = message.lines().next().unwrap_or("no message");
    installed.status.success().then_some(()).ok_or_else(|| format!("npm cannot install it: {first}"))
}

#[test]
fn the_page_works_in_a_browser() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("browser");
    let chromium = match find_chromium().and_then(|chromium| install(&folder).map(|()| chromium)) {
        Ok(chromium) => chromium,
        Err(reason) => return eprintln!("skipped: {reason}"),
    };
    let mut flows = Command::new("node");
    flows.arg(Path::new(SCRIPTS).join("page.mjs")).arg("--modules").arg(&folder);
    flows.arg("--chromium").arg(chromium).arg("--screenshots").arg(folder.join("screenshots"));
    let done = flows.output().unwrap();
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{printed}\n{}", String::from_utf8_lossy(&done.stderr));
}
