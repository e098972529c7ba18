//! Scripts that are made to be expensive, and the count of steps of their analysis.

use std::cell::Cell;

thread_local! {
    pub(crate) static WORK: Cell<usize> = const { Cell::new(0) };
}

/// The steps of the analyses on this thread.
#[must_use]
pub fn work() -> usize {
    WORK.get()
}

/// Makes a script of about this many bytes.
pub type Script = fn(usize) -> String;

const SCENARIOS: &str = "scenarios: [{flow: []}]\n";

fn joined(n: usize, separator: &str, part: impl Fn(usize) -> String) -> String {
    (0..n).map(part).collect::<Vec<_>>().join(separator)
}

/// What is repeated has half of the length.
fn repeated(bytes: usize, use_of_anchor: &str) -> String {
    let uses = bytes / 2 / use_of_anchor.len();
    format!("[{}]\n", vec![use_of_anchor; uses].join(""))
}

/// Expensive scripts with their descriptions.
pub const LARGE_SCRIPTS: [(&str, Script); 27] = [
    ("a key of anchors, and prefixes of it", |bytes| {
        let anchors = joined(bytes / 26, ", ", |i| format!("&a{i} x"));
        let mut text = format!("\"{}\": [{anchors}]\n", vec!["a"; bytes / 52].join(":"));
        text += &joined(bytes / 260, "", |i| {
            format!("\"{}\": 1\n", vec!["a"; i % 80].join(":"))
        });
        text + "config: {target: *a0}\n"
    }),
    ("keys with used anchors", |bytes| {
        let keys = joined(bytes / 24, "\n", |i| format!("k{i}: &a{i} x"));
        let uses = joined(bytes / 24, ", ", |i| format!("*a{i}"));
        format!("{keys}\nconfig: {{variables: [{uses}]}}\n{SCENARIOS}")
    }),
    ("open brackets", |bytes| "[".repeat(bytes)),
    ("nested brackets", |bytes| {
        format!("config: {}{}", "[".repeat(bytes / 2), "]".repeat(bytes / 2))
    }),
    ("nested braces", |bytes| "{a: ".repeat(bytes / 4)),
    ("nested block lists", |bytes| "- ".repeat(bytes / 2)),
    ("nested explicit keys", |bytes| "? ".repeat(bytes / 2)),
    ("deep block indentation", |bytes| {
        let depth = (bytes * 2).isqrt();
        joined(depth, "\n", |i| format!("{}a:", " ".repeat(i)))
    }),
    ("keys in JSON", |bytes| {
        let keys = joined(bytes / 18, ",", |i| format!("\"key{i}\": {{}}"));
        format!("{{{keys}, \"config\": {{}}, \"scenarios\": [{{\"flow\": []}}]}}")
    }),
    ("billion laughs", |bytes| {
        let depth = bytes / 60;
        let uses = |i: usize| vec![format!("*a{i}"); 9].join(",");
        let levels = joined(depth, "\n", |i| format!("k{i}: &a{} [{}]", i + 1, uses(i)));
        format!("config: &a0 [x]\n{levels}\n{SCENARIOS}")
    }),
    ("values nested by aliases", |bytes| {
        let levels = joined(bytes / 20, "\n", |i| format!("k{i}: &a{} [*a{i}]", i + 1));
        format!("config: &a0 [x]\n{levels}\n{SCENARIOS}")
    }),
    ("values nested by aliases within keys", |bytes| {
        let levels = joined(bytes / 24, ",", |i| {
            format!("{{k: &a{} [*a{i}]}}: 1", i + 1)
        });
        format!("config: &a0 [x]\nx: [{levels}]\n{SCENARIOS}")
    }),
    ("chains of merge keys", |bytes| {
        let maps = joined(bytes / 32, "\n", |i| {
            format!("- &a{} {{<<: *a{i}, k{i}: 1}}", i + 1)
        });
        format!("- &a0 {{x: 1}}\n{maps}\n")
    }),
    ("merge keys of one large map", |bytes| {
        let map = joined(bytes / 20, ", ", |i| format!("k{i}: 1"));
        format!("x: &a {{{map}}}\ny: {}", repeated(bytes, "{<<: *a},"))
    }),
    ("merge keys of a list of empty maps", |bytes| {
        let list = "{},".repeat(bytes / 6);
        format!("x: &a [{list}]\ny: {}", repeated(bytes, "{<<: *a},"))
    }),
    ("merge keys of long keys", |bytes| {
        let key = "k".repeat(bytes / 2);
        format!(
            "x: &a {{\"{key}\": 1}}\ny: {}",
            repeated(bytes, "{<<: *a},")
        )
    }),
    ("a long text as a key by aliases", |bytes| {
        let text = "k".repeat(bytes / 2);
        format!("x: &a \"{text}\"\ny: {}", repeated(bytes, "*a : 1,"))
    }),
    ("a list as a key by aliases", |bytes| {
        let list = "1e300,".repeat(bytes / 12);
        format!("x: &a [{list}]\ny: {}", repeated(bytes, "*a : 1,"))
    }),
    ("a long text within list keys by aliases", |bytes| {
        let text = "k".repeat(bytes / 4);
        let key = format!("[{}]", vec!["*a"; bytes / 12].join(","));
        format!("x: &a \"{text}\"\n? {key}\n: 1\ny: [{key}: 2]\n")
    }),
    ("a long prefix of tags", |bytes| {
        let tags = "!a!x 1,".repeat(bytes / 14);
        format!("%TAG !a! {}\n---\n[{tags}]\n", "p".repeat(bytes / 2))
    }),
    ("empty items", |bytes| "-\n".repeat(bytes / 2)),
    ("short keys", |bytes| {
        let keys = joined(bytes / 7, ",", |i| format!("{i:x}"));
        format!("config: {{{keys}}}\n")
    }),
    ("keys close to known ones", |bytes| {
        let keys = joined(bytes / 16, "\n", |i| format!("  targe{i}: x"));
        format!("config:\n{keys}\n{SCENARIOS}")
    }),
    ("phases by alias", |bytes| {
        format!(
            "config:\n  x-p: &p {{arrivalRate: 1, duration: 1.5}}\n  phases: {}{SCENARIOS}",
            repeated(bytes * 2, "*p,")
        )
    }),
    ("rules by alias", |bytes| {
        let rule = "a + ".repeat(bytes / 8) + "1";
        format!(
            "config:\n  x-r: &r {{expression: {rule}}}\n  ensure:\n    conditions: {}{SCENARIOS}",
            repeated(bytes, "*r,")
        )
    }),
    ("nested parentheses of rules", |bytes| {
        let rule = format!("{}1", "(".repeat(4000));
        let rules = joined(bytes / 4040, "\n", |_| format!("    - expression: {rule}"));
        format!("config:\n  ensure:\n    conditions:\n{rules}\n{SCENARIOS}")
    }),
    ("blank lines after each text", |bytes| {
        let lines = joined(bytes / 40, "", |i| {
            format!("k{i}: a{}\n", "\n \n".repeat(10))
        });
        lines + SCENARIOS
    }),
];
