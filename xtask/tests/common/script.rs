//! Programs that tests put in the place of others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Makes `script` a program at `path`.
pub fn write(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
