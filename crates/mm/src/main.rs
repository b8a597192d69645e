//! The program `mm`; see the library of the same name.

fn main() -> std::process::ExitCode {
    mm::main()
}
