//! The analysis of an expensive script takes time linear in its length, and little stack.

use crate::analyze;
use crate::testing::{LARGE_SCRIPTS, work};
use crate::yaml::MAX_SIZE;

#[test]
fn analysis_of_an_expensive_script_is_linear_in_its_length() {
    for (what, script) in LARGE_SCRIPTS {
        let work = |bytes| {
            let text = script(bytes);
            let before = work();
            let _ = analyze(&text, "a.yaml", Some("e"));
            (work() - before, text.len())
        };
        for (work, size) in [work(20_000), work(60_000)] {
            // Aliases can repeat values up to the maximum size.
            assert!(
                work < 60 * size + 2 * MAX_SIZE,
                "{what}: {work} steps for {size} bytes"
            );
        }
    }
}

#[test]
fn analysis_of_an_expensive_script_needs_little_stack() {
    let analyses = || {
        for (_, script) in LARGE_SCRIPTS {
            let _ = analyze(&script(200_000), "a.yaml", None);
        }
    };
    // An eighth of the stack of the operator's main thread. An overflow ends the process.
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    thread.spawn(analyses).unwrap().join().unwrap();
}
