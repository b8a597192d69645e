//! Turns panics of the tokenizers library, which it raises on many damaged files, into errors without output.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Whether this thread runs the library, so that its panics become errors.
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `library`, which uses only the tokenizers library: a value that a panic leaves half changed must not
/// be used.
///
/// # Errors
/// As `library`, or it panics.
pub(super) fn guarded<T>(library: impl FnOnce() -> tokenizers::Result<T>) -> tokenizers::Result<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !GUARDED.get() {
                usual(panic);
            }
        }));
    });
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(library));
    GUARDED.set(outer);
    result.unwrap_or_else(|panic| Err(format!("the tokenizers library failed: {}", text(&*panic)).into()))
}

fn text(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_library_is_an_error_with_its_text() {
        let panics = |number: usize| {
            guarded::<()>(|| panic!("index {number} is out of bounds")).unwrap_err().to_string()
        };
        assert!(panics(7).ends_with("the tokenizers library failed: index 7 is out of bounds"));
        assert!(guarded::<()>(|| panic!("no reason")).unwrap_err().to_string().ends_with("no reason"));
        assert_eq!(guarded(|| Ok(3)).unwrap(), 3);
        assert!(guarded::<()>(|| Err("malformed".into())).unwrap_err().to_string() == "malformed");
    }
}
