//! The texts that are mutated.

use std::time::Duration;

use loadtest_script::testing::LARGE_SCRIPTS;

use crate::mutate::{Random, mutate};
use crate::targets::Target;

const EXAMPLES: [&str; 6] = [
    include_str!("../../../hack/examples/basic-loadtest/test-script.yaml"),
    include_str!("../../../hack/examples/divided-loadtest/test-script.yaml"),
    include_str!("../../../hack/examples/thresholds-loadtest/test-script.yaml"),
    include_str!("../../../hack/examples/typescript-loadtest/test-script.yaml"),
    include_str!("../../../hack/examples/published-metrics-loadtest/test-script.yaml"),
    include_str!("../../../hack/examples/worker-loadtest/test-script.yaml"),
];

const SCRIPT: &str = "
config: &c
  target: 'http://x'
  phases: [{duration: 60, arrivalRate: 5, rampTo: 9}, {pause: '30s'}]
  environments:
    e: {<<: *c, phases: [{duration: 2, arrivalCount: 1}], variables: {a: [1, 2]}}
  ensure:
    thresholds: [{'http.response_time.p95': 200}]
    conditions:
    - {expression: \"counters['http.codes.200'] > 0 && !(rates.x || 0)\", strict: false}
    maxErrorRate: 1
  payload: {path: a.csv, fields: [a]}
scenarios:
- name: |
    a
     b
  flow: [{get: {url: /, json: {a: \"\\u0041\\n\"}}}, {loop: [{think: 1}], count: 2}]
";

const SNAPSHOT: &str = r#"{"final":true,"first":1,"last":9000,"start":1,"counters":{"http.requests":7,"http.codes.200":7,"vusers.created":3,"vusers.completed":3,"plugins.metrics-by-endpoint./a (get).codes.200":4,"a":1,"a-b":1,"a-b/c":2},"histograms":{"http.response_time":[0,1,2,3,0,[5,1,-1,4],[]],"plugins.metrics-by-endpoint.response_time./a":[1,-1,2,3,1,[5,1,0,0,4],[3,1]]},"dropped":[1,2],"lost":["x"],"invalid":["y"],"errors":2}"#;

const THRESHOLDS: [&str; 14] = [
    "http.response_time.p95 < 200",
    "http.codes.500 == 0 and (vusers.failed + 1) / 2 <= 3",
    "'a-b' > 1 or not (a-b/c in (1, 2, 3))",
    "plugins.metrics-by-endpoint./a (get).codes.200 == 4",
    "plugins.metrics-by-endpoint.response_time./a.p95 < 1",
    "max(http.requests, 2 ^ 3 % 4) - round(1.5) > -1",
    "maxErrorRate <= 1",
    "apdex.satisfied > 1 and apdex > 0.5",
    "http.respnse_time.p95 < 1",
    "errors.ETIMEDUOT == 0",
    "plugins.expect.ok > 0",
    "a-b-c-d < x-y",
    "rps > 1",
    "custom.counter >= 0 and custom.histogram.p99 != 1",
];

/// Expensive texts for the targets other than scripts: a description, the position of the target, and the text.
pub(crate) fn large() -> [(&'static str, usize, String); 6] {
    let joined = |n: usize, separator: &str, part: &dyn Fn(usize) -> String| {
        (0..n).map(part).collect::<Vec<_>>().join(separator)
    };
    let snapshot = |name: &dyn Fn(usize) -> String| {
        let counters = joined(4000, ",", &|n| format!("\"{}\":1", name(n)));
        format!("{{\"counters\":{{{counters}}},\"histograms\":{{}}}}")
    };
    let nested = snapshot(&|n| format!("a{}{}", "-".repeat(n % 40), n / 40));
    let with =
        |json: &str, expression: &str| format!("{json}\n{}", vec![expression; 200].join("\n"));
    let sum = |one: &str| format!("{} > 0", vec![one; 1300 / (one.len() + 3)].join(" + "));
    let custom = joined(50, " + ", &|n| format!("custom.metric{n}"));
    [
        (
            "thresholds over metrics with a common prefix",
            2,
            with(&nested, &sum("a-----1")),
        ),
        (
            "thresholds with names that are not measured",
            2,
            with(&nested, &sum("x-y")),
        ),
        (
            "thresholds over counters of plugins",
            2,
            with(&nested, &sum("plugins.expect.ok")),
        ),
        (
            "thresholds over many custom metrics",
            2,
            with("{}", &format!("{custom} > 0")),
        ),
        (
            "a snapshot of one dense histogram",
            1,
            format!(
                "{{\"counters\":{{}},\"histograms\":{{\"h\":[0,1,2,3,0,[-900,1{}],[]]}}}}",
                ",0".repeat(100_000)
            ),
        ),
        ("a snapshot of many counters", 1, nested.clone()),
    ]
}

/// Texts longer than this are not kept.
const MAX_KEPT: usize = 256 << 10;
const MAX_TEXTS: usize = 400;

/// The texts for each target.
pub(crate) struct Corpus {
    scripts: Vec<String>,
    snapshots: Vec<String>,
    thresholds: Vec<String>,
    messages: Vec<String>,
}

impl Corpus {
    pub(crate) fn new() -> Self {
        let small = LARGE_SCRIPTS.iter().map(|(_, script)| script(2000));
        let examples = EXAMPLES.iter().chain([&SCRIPT]);
        let thresholds = THRESHOLDS.iter().map(|one| format!("{SNAPSHOT}\n{one}"));
        let all = format!("{SNAPSHOT}\n{}", THRESHOLDS.join("\n"));
        let message = loadtest_results::testing::message(SNAPSHOT);
        Self {
            scripts: examples.map(ToString::to_string).chain(small).collect(),
            snapshots: vec![SNAPSHOT.to_owned()],
            thresholds: thresholds.chain([all]).collect(),
            messages: vec![format!("log\n{message}"), message],
        }
    }

    fn texts(&mut self, target: &Target) -> &mut Vec<String> {
        match target.name {
            "script" => &mut self.scripts,
            "snapshot" => &mut self.snapshots,
            "thresholds" => &mut self.thresholds,
            _ => &mut self.messages,
        }
    }

    /// A text that was made of one or two others.
    pub(crate) fn mutated(&mut self, target: &Target, random: &mut Random) -> String {
        let texts = self.texts(target);
        let (one, other) = (random.choose(texts).clone(), random.choose(texts).clone());
        mutate(one, &other, random)
    }

    /// Keeps a text that may lead to others: one that takes long for its size, or any once in a while.
    pub(crate) fn keep(
        &mut self,
        target: &Target,
        text: String,
        elapsed: Duration,
        random: &mut Random,
    ) {
        let nanos_per_byte = elapsed.as_nanos() / (text.len() as u128 + 1000);
        let is_slow = nanos_per_byte > 100;
        if text.len() > MAX_KEPT || !is_slow && random.below(50) != 0 {
            return;
        }
        let texts = self.texts(target);
        if texts.len() < MAX_TEXTS {
            texts.push(text);
        } else {
            let at = random.below(texts.len());
            texts[at] = text;
        }
    }
}
