//! Lets the built and the installed `mm` find the libtorch that it was linked with.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    // With LIBTORCH_USE_PYTORCH there is none to record: the environment that built it must run it.
    if let Some(libtorch) = std::env::var_os("LIBTORCH") {
        println!("cargo:rustc-link-arg-bins=-Wl,-rpath,{}", Path::new(&libtorch).join("lib").display());
    }
}
