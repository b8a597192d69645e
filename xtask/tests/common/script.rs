//! Shell scripts that take the place of programs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes `script` as a program to `path`.
pub fn write(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
