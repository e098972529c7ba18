#![allow(clippy::unwrap_used, clippy::float_cmp)]

use std::collections::BTreeMap;

use serde::Deserialize;

mod browsers;
mod load;
mod properties;

use super::*;
use crate::sketch::{MAX_BINS, round};
use crate::testing::message;

/// Messages of workers, and what Artillery computes from the same sketches
/// (`worker/test/generate-fixtures.mjs`).
#[derive(Deserialize)]
struct Fixture {
    artillery: String,
    #[serde(rename = "folds")]
    collapses: u8,
    messages: Vec<String>,
    counters: BTreeMap<String, f64>,
    summaries: BTreeMap<String, BTreeMap<String, f64>>,
}

const FIXTURES: [&str; 4] = [
    include_str!("../../../worker/test/fixtures/generated.json"),
    include_str!("../../../worker/test/fixtures/artillery-2.0.1.json"),
    include_str!("../../../worker/test/fixtures/artillery-2.0.20.json"),
    include_str!("../../../worker/test/fixtures/artillery-2.0.34.json"),
];

fn parse(message: &str) -> Result<Measurements, SnapshotError> {
    Snapshot::from_message(message)
        .ok_or(SnapshotError::Missing)?
        .decode()
}

fn merged(messages: &[String]) -> Measurements {
    let mut all = Measurements::default();
    for message in messages {
        all.merge(&parse(message).unwrap());
    }
    all
}

#[test]
fn merged_snapshots_have_the_summaries_of_artillery() {
    let mut compared = 0;
    for fixture in FIXTURES
        .iter()
        .flat_map(|text| serde_json::from_str::<Vec<Fixture>>(text).unwrap())
    {
        let all = merged(&fixture.messages);
        assert_eq!(
            (all.workers as usize, all.partial, all.dropped),
            (fixture.messages.len(), 0, 0)
        );
        for (name, value) in &fixture.counters {
            assert_eq!(
                all.counter(name),
                Some(*value),
                "{} of {}",
                name,
                fixture.artillery
            );
        }
        for (name, summaries) in &fixture.summaries {
            let sketch = all.histogram(name).unwrap();
            assert_eq!(sketch.collapses, fixture.collapses);
            // Artillery's merge drops negative values.
            let is_comparable = sketch.negative.is_empty() || all.workers == 1;
            for (summary, value) in summaries.iter().filter(|_| is_comparable) {
                assert_eq!(
                    sketch.summary(summary),
                    Some(*value),
                    "{name}.{summary} of {}",
                    fixture.artillery
                );
                compared += 1;
            }
        }
        assert_eq!(all.counters.len(), fixture.counters.len());
        assert_eq!(all.histograms.len(), fixture.summaries.len());
    }
    assert!(compared > 300, "{compared}");
}

#[test]
fn snapshot_is_found_after_log_lines() {
    let snapshot = message(
        r#"{"final":true,"first":1000,"last":3000,"counters":{"a":2},"histograms":{"h":[0,1,2,3,1,[5,1,1],[]]}}"#,
    );
    let all = parse(&format!("Error: no\n{snapshot}\n")).unwrap();
    assert_eq!(
        (all.workers, all.partial, all.counter("a"), all.seconds()),
        (1, 0, Some(2.0), 2.0)
    );
    assert_eq!(all.histogram("h").unwrap().count(), 4);
    assert_eq!(log_tail(&format!("one\ntwo\n{snapshot}")), "one\ntwo");
    assert_eq!(log_tail(&snapshot), "");
}

#[test]
fn invalid_metric_costs_only_itself() {
    let with = |kind: &str, value: &str| {
        let (counter, histogram) = if kind == "counter" {
            (value, "[0,1,2,3,0,[5,1],[]]")
        } else {
            ("1", value)
        };
        parse(&message(&format!(
            r#"{{"final":true,"counters":{{"bad":{counter},"http.requests":7}},
            "histograms":{{"bad":{histogram},"http.response_time":[2,1,2,3,0,[5,1],[5,1]]}}}}"#
        )))
        .unwrap()
    };
    let is_dropped = |all: &Measurements| {
        assert_eq!((all.workers, all.partial, all.dropped), (1, 0, 0));
        assert_eq!(all.counter("http.requests"), Some(7.0));
        assert_eq!(all.histogram("http.response_time").unwrap().count(), 2);
        assert!(all.may_be_missing("bad") && !all.may_be_missing("http.requests"));
        assert_eq!(
            all.problems.iter().collect::<Vec<_>>(),
            ["metrics with invalid values were dropped: bad"]
        );
    };
    for bad in [
        "[3,1,2,3,0,[],[]]",
        "[0,1,2,3,-1,[],[]]",
        "[0,1,2,3,0,[5,-1],[]]",
        "[0,1,2,3,0,[5,1,9007199254740993],[]]",
        "[0,1,2,3,0,[36001,1],[]]",
        "[0,1,2,3,0,[36000,1,1],[]]",
        "[0,1,2,3,0,[-9000000000,1],[]]",
        "[0,1,2,3,0,[0.5,1],[]]",
        "[0,1,2,1e999,0,[],[]]",
        "[0,1,2,\"03\",0,[],[]]",
        "[0,1,2]",
        "{}",
        "null",
    ] {
        let all = with("histogram", bad);
        is_dropped(&all);
        assert!(all.histogram("bad").is_none(), "{bad}");
    }
    for bad in [
        "\"000333\"",
        "null",
        "true",
        "1e999",
        "-1e999",
        "{\"a\":{\"b\":1}}",
        "[1]",
    ] {
        let all = with("counter", bad);
        is_dropped(&all);
        assert!(all.counter("bad").is_none(), "{bad}");
    }
    for (good, value) in [("-5", -5.0), ("1e308", 1e308), ("0.1", 0.1)] {
        let all = with("counter", good);
        assert_eq!((all.counter("bad"), all.problems.len()), (Some(value), 0));
    }
}

#[test]
fn counter_of_artillery_is_invalid_if_it_is_negative() {
    let all = parse(&message(
        r#"{"final":true,"counters":{"http.requests":-5,"custom.balance":-5},"histograms":{},"errors":-7}"#,
    ))
    .unwrap();
    assert_eq!(all.counter("custom.balance"), Some(-5.0));
    assert_eq!(all.counter("http.requests"), None);
    assert!(all.may_be_missing("http.requests"));
    let results = summarize(&all, 1, 0);
    assert_eq!((results.request_rate, results.errors), (0.0, 0));
}

#[test]
fn histogram_is_invalid_if_a_value_is_infinite_or_it_has_too_many_bins() {
    let with = |bins: &str| {
        parse(&message(&format!(
            r#"{{"final":true,"counters":{{}},"histograms":{{"h":[2,1,2,3,0,{bins},[]]}}}}"#
        )))
        .unwrap()
    };
    assert_eq!(with("[1,1]").histogram("h").unwrap().count(), 1);
    assert!(with("[36000,1]").may_be_missing("h"));
    let dense = |n: usize| format!("[-900,1{}]", ",0".repeat(n - 1));
    assert!(with(&dense(MAX_BINS)).histogram("h").is_some());
    assert!(with(&dense(MAX_BINS + 1)).may_be_missing("h"));
}

#[test]
fn merged_histogram_keeps_its_highest_bins_in_any_order() {
    let sketch = |keys: std::ops::Range<i32>| Sketch {
        positive: keys.map(|key| (key, 2)).collect(),
        ..Sketch::default()
    };
    let parts = [sketch(-2000..0), sketch(0..2000), sketch(2000..2010)];
    let merged = |order: [usize; 3]| {
        let mut all = Sketch::default();
        for n in order {
            all.merge(&parts[n]);
        }
        all
    };
    let all = merged([0, 1, 2]);
    assert_eq!((all.positive.len(), all.count()), (MAX_BINS, 8020));
    assert_eq!(all.positive.last_key_value(), Some((&2009, &2)));
    for order in [[0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        assert_eq!(merged(order), all, "{order:?}");
    }
}

#[test]
fn cut_snapshot_of_many_brackets_is_read_in_linear_time() {
    // With a quadratic search this takes minutes.
    for json in [
        "{".repeat(100_000) + &",".repeat(150_000),
        "{[]".repeat(80_000),
    ] {
        let error = parse_cut(&json).unwrap_err();
        assert!(matches!(error, SnapshotError::Malformed(_)), "{error}");
    }
}

/// Parses a snapshot whose compressed form has lost its end.
fn parse_cut(json: &str) -> Result<Measurements, SnapshotError> {
    let whole = message(json);
    let lost = whole.len() - 12;
    parse(&whole[..lost])
}

#[test]
fn summary_of_the_largest_numbers_has_no_infinite_value() {
    let all = parse(&message(
        r#"{"final":true,"first":0,"last":1000,"errors":1e308,"counters":{"http.requests":1.7e308,"errors.E":1.7e308,"vusers.failed":-1.7e308},
        "histograms":{"http.response_time":[2,-1.7e308,1.7e308,1.7e308,0,[36000,9007199254740992],[36000,9007199254740992]]}}"#,
    ))
    .unwrap();
    let mut merged = all.clone();
    for _ in 0..3 {
        merged.merge(&all);
    }
    let results = serde_json::to_string(&summarize(&merged, 4, 0)).unwrap();
    assert!(
        !results.contains("null") && results.contains("requestRate"),
        "{results}"
    );
}

#[test]
fn invalid_names_of_a_worker_are_missing_and_named() {
    let name = "a".repeat(1025);
    let all = parse(&message(&format!(
        r#"{{"final":true,"invalid":["custom.text"],"counters":{{"{name}":1,"a":1}},"histograms":{{}}}}"#
    )))
    .unwrap();
    let merged = both(&Measurements::default(), &all, Measurements::merge);
    assert_eq!(merged, all);
    assert!(all.may_be_missing("custom.text") && all.may_be_missing(&name[..1024]));
    assert!(!all.may_be_missing("a") && all.counters.len() == 1);
    let problem = all.problems.first().unwrap();
    assert!(problem.contains("custom.text, aaa") && problem.len() < 200);
    let any = parse(&message(
        r#"{"invalid":["x","*"],"counters":{"a":1},"histograms":{}}"#,
    ))
    .unwrap();
    assert!(any.may_be_missing("a"));
}

#[test]
fn snapshot_that_no_worker_writes_is_rejected() {
    let malformed = |message: &str| matches!(parse(message), Err(SnapshotError::Malformed(_)));
    for bad in [
        "{}",
        "[]",
        r#"{"counters":{}}"#,
        r#"{"histograms":{}}"#,
        r#"{"counters":3,"histograms":{}}"#,
    ] {
        assert!(malformed(&message(bad)), "{bad}");
    }
    assert_eq!(parse("Error: no"), Err(SnapshotError::Missing));
    assert_eq!(
        parse("loadtest.v2 abc"),
        Err(SnapshotError::Version("2".into()))
    );
    assert_eq!(
        parse("loadtest.v1 ****"),
        Err(SnapshotError::Corrupt("not base64"))
    );
    assert!(matches!(
        parse("loadtest.v1 damaged"),
        Err(SnapshotError::Corrupt(_))
    ));
    assert_eq!(parse("loadtest.v1 eA"), Err(SnapshotError::Cut(14)));
    // A decompression bomb: most of the message disappears when compressed.
    assert!(matches!(
        parse(&message(&" ".repeat(64 << 20))),
        Err(SnapshotError::Corrupt(_))
    ));
}

#[test]
fn metrics_before_a_cut_of_the_kubelet_are_counted() {
    let counters: Vec<_> = (0..400_u32)
        .map(|n| format!(r#""custom.{}":1{n}"#, n.wrapping_mul(2_654_435_761)))
        .collect();
    let whole = message(&format!(
        r#"{{"final":true,"first":1000,"last":3000,"counters":{{"http.requests":123,{}}},"histograms":{{"h":[0,1,2,3,0,[5,1],[]]}}}}"#,
        counters.join(",")
    ));
    let complete = parse(&whole).unwrap();
    assert_eq!((complete.partial, complete.counters.len()), (0, 401));
    // All messages of a pod have 12 KiB, which its containers share.
    for (containers, bytes) in [(4, 3072), (5, 2457), (12, 1024)] {
        assert!(whole.len() > bytes);
        let all = parse(whole.get(..bytes).unwrap()).unwrap();
        assert_eq!(
            all.problems.iter().collect::<Vec<_>>(),
            [&format!(
                "the results were cut by the kubelet to {bytes} bytes ({containers} containers share 12 KiB)"
            )]
        );
        assert_eq!((all.workers, all.partial, all.seconds()), (1, 1, 2.0));
        assert_eq!(all.counter("http.requests"), Some(123.0));
        assert!(all.counters.len() > 20 && all.counters.len() < 401);
        assert!(all.counters.iter().all(|(key, value)| {
            complete
                .counter(key.name())
                .is_some_and(|whole| whole.to_bits() == value.to_bits())
        }));
        assert!(all.may_be_missing("h") && all.may_be_missing("http.requests"));
    }
    for bytes in 0..whole.len() {
        match parse(whole.get(..bytes).unwrap()) {
            Ok(all) => assert!(all.was_cut && all.partial == 1),
            Err(error) => assert!(matches!(
                error,
                SnapshotError::Cut(_) | SnapshotError::Missing | SnapshotError::Version(_)
            )),
        }
    }
    assert_eq!(
        SnapshotError::Cut(2048).to_string(),
        "the results were cut by the kubelet to 2048 bytes (6 containers share 12 KiB)"
    );
}

#[test]
fn summary_has_a_bounded_size() {
    let counters = |prefix: &str| {
        (100..200)
            .map(|n| format!(r#""{prefix}{n}{}":{n}"#, "x".repeat(300)))
            .collect::<Vec<_>>()
            .join(",")
    };
    let json = format!(
        r#"{{"first":1000,"last":11000,"errors":7,"dropped":[2,3],"counters":{{{},{},"http.requests":1234,"vusers.created":3}},"histograms":{{
            "http.response_time":[1,1.26,9.94,null,0,[5,1],[]],"other":[0,1,1,1,0,[0,1],[]]}}}}"#,
        counters("errors."),
        counters("http.codes.")
    );
    let results = summarize(&parse(&message(&json)).unwrap(), 2, 0);
    assert_eq!(
        (
            results.workers_reporting.as_str(),
            results.workers_partial,
            results.partial
        ),
        ("1 of 2", 1, true)
    );
    assert_eq!(
        (
            results.requests,
            results.request_rate,
            results.vusers_created
        ),
        (1234, 123.4, 3)
    );
    assert_eq!((results.errors, results.metrics_dropped), (14_950 + 7, 5));
    assert_eq!(
        (
            results.errors_by_kind.len(),
            results.codes.len(),
            results.histograms.len()
        ),
        (11, 21, 1)
    );
    assert_eq!(
        results
            .errors_by_kind
            .iter()
            .map(|kind| kind.count)
            .sum::<i64>(),
        results.errors
    );
    assert_eq!(
        results.errors_by_kind.iter().map(|kind| kind.count).max(),
        results.errors_by_kind.last().map(|kind| kind.count)
    );
    let times = results.response_time().unwrap();
    assert_eq!(
        (times.min, times.max, times.mean, times.error_bound.as_str()),
        (Some(1.3), Some(9.9), None, "2%")
    );
    assert!(serde_json::to_string(&results).unwrap().len() < 6000);
}

#[test]
fn metrics_over_the_limit_are_discarded_by_priority_in_any_order() {
    let measurements_of = |worker: u32| {
        let counters: Vec<_> = (0..3000)
            .map(|n| format!(r#""custom.{worker}.{n}":1"#))
            .collect();
        parse(&message(&format!(
            r#"{{"counters":{{"http.requests":1,{}}},"histograms":{{}}}}"#,
            counters.join(",")
        )))
        .unwrap()
    };
    let merged = |order: [u32; 3]| {
        let mut all = Measurements::default();
        for worker in order {
            all.merge(&measurements_of(worker));
        }
        all
    };
    let all = merged([1, 2, 3]);
    assert_eq!(all, merged([3, 1, 2]));
    assert_eq!(
        (all.counters.len(), all.counter("http.requests")),
        (4000, Some(3.0))
    );
    assert!(
        !all.may_be_missing("http.requests")
            && !all.may_be_missing("custom.1.5")
            && all.may_be_missing("custom.3.5")
    );
    assert_eq!(
        both(&Measurements::default(), &all, Measurements::merge),
        all
    );
}

#[test]
fn any_metric_may_be_missing_beyond_the_limit_of_dropped_names() {
    let mut all = Measurements::default();
    for n in 0..50 {
        all.add_dropped_name(&format!("custom.{n}"));
    }
    assert!(all.may_be_missing("custom.7") && !all.may_be_missing("other"));
    all.add_dropped_name("custom.50");
    assert!(all.may_be_missing("custom.7") && all.may_be_missing("other"));
}

#[test]
fn values_are_rounded_like_math_round() {
    assert_eq!(
        [0.25, -0.25, 0.049_999, 2.5, 1e300].map(round),
        [0.3, -0.2, 0.0, 2.5, 1e300]
    );
}

fn both<T: Clone>(a: &T, b: &T, merge: impl Fn(&mut T, &T)) -> T {
    let mut both = a.clone();
    merge(&mut both, b);
    both
}
