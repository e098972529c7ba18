//! Bounds on what is kept of texts that others write. Whoever may write a pod or its status can make them as long as an object
//! may be, and the operator keeps every worker of every running test.
//!
//! A worker keeps at most [`MAX_OUTPUT`] bytes of output (as a log or as a snapshot, and once more for another container that
//! failed), one message, one reason, and names that the API server bounds: 12 KiB together.

/// The longest termination message that a kubelet reports, in bytes (Kubernetes, `MaxContainerTerminationMessageLength`).
const MAX_OUTPUT: usize = 4096;

/// The longest message of a condition or of a waiting container, in bytes. Conditions and events show less.
const MAX_MESSAGE: usize = 2048;

/// The longest reason, in bytes. Those of Kubernetes are single words.
const MAX_REASON: usize = 128;

/// The end of a termination message: a snapshot is the last line, and so is the error that ended a worker.
pub(super) fn output(text: &str) -> &str {
    let mut start = text.len().saturating_sub(MAX_OUTPUT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// The beginning of a message.
pub(super) fn message(text: &str) -> String {
    beginning(text, MAX_MESSAGE)
}

/// The beginning of a reason.
pub(super) fn reason(text: &str) -> String {
    beginning(text, MAX_REASON)
}

fn beginning(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        let long = "é".repeat(5000);
        let odd = format!("{long}x");
        assert_eq!((message(&long).len(), reason(&long).len()), (2048, 128));
        assert_eq!((output(&long).len(), output(&odd).len()), (4096, 4095));
        assert_eq!((message("a"), output("b")), ("a".to_owned(), "b"));
    }
}
