//! Properties of merging and parsing, for arbitrary input.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::compress_to_vec_zlib;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;
use crate::LoadPlan;
use crate::load::Load;

/// Sums of integers are exact, so they do not depend on the order.
fn sketch() -> impl Strategy<Value = Sketch> {
    let bins = || btree_map(-300..300, 1..1_000_000_u64, 0..30);
    (0..=2_u8, -1e6..1e6, 0..5_u64, bins(), bins()).prop_map(
        |(collapses, value, zeros, positive, negative)| Sketch {
            collapses,
            min: Some(f64::floor(value)),
            max: Some(f64::ceil(value)),
            sum: Some(f64::floor(value)),
            zeros,
            positive,
            negative,
        },
    )
}

fn measurements() -> impl Strategy<Value = Measurements> {
    let name = || {
        prop::sample::select(vec![
            "http.requests",
            "errors.E",
            "custom.a",
            "custom.b",
            "plugins.c",
        ])
    };
    (
        btree_map(name(), 0..1000_i32, 0..5),
        btree_map(name(), sketch(), 0..4),
        0..2_u32,
        prop::option::of(0..100_u32),
        prop::option::of(0..1000_u32),
        prop::option::of(sketch()),
    )
        .prop_map(|(counters, histograms, partial, first, planned, delay)| {
            let plan = planned.map(f64::from).map(|planned| LoadPlan {
                vusers: planned,
                actual_seconds: planned,
                ..LoadPlan::default()
            });
            let mut all = Measurements {
                workers: 1,
                partial,
                first: first.map(f64::from),
                load: Load::of_worker(plan, delay, None, Some(1.0)),
                ..Measurements::default()
            };
            for (name, n) in counters {
                all.add_counter(name, f64::from(n));
            }
            for (name, histogram) in histograms {
                all.add_histogram(name, &histogram);
            }
            all
        })
}

proptest! {
    #[test]
    fn merge_does_not_depend_on_the_order(a in measurements(), b in measurements(), c in measurements()) {
        let merge = |a: &Measurements, b: &Measurements| both(a, b, Measurements::merge);
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
    }

    #[test]
    fn merged_sketch_is_the_sketch_of_all_values(a in vec(1e-3..1e6, 0..200), b in vec(1e-3..1e6, 0..200), collapses in 0..=2_u8) {
        // The bins of a `DDSketch` with the gamma for this number of collapses.
        let sketch = |values: &[f64], collapses: u8| {
            let log_gamma = (2.0 * 0.01 / 0.99_f64).ln_1p() * f64::from(1 << collapses);
            let mut sketch = Sketch { collapses, sum: Some(0.0), ..Sketch::default() };
            for value in values {
                #[allow(clippy::cast_possible_truncation)]
                let key = (value.ln() / log_gamma).ceil() as i32;
                *sketch.positive.entry(key).or_default() += 1;
            }
            sketch
        };
        let merged = both(&sketch(&a, 0), &sketch(&b, collapses), Sketch::merge);
        let all: Vec<_> = a.iter().chain(&b).copied().collect();
        prop_assert_eq!(&merged, &sketch(&all, collapses));
        let mut sorted = all.clone();
        sorted.sort_by(f64::total_cmp);
        if let Some(median) = sorted.get(sorted.len().saturating_sub(1) / 2) {
            let error = (merged.summary("p50").unwrap() - median).abs();
            // Summaries are rounded to 0.1.
            prop_assert!(error <= median * f64::from(merged.error_percent()) / 100.0 + 0.05001, "{median} is off by {error}");
        }
    }

    #[test]
    fn any_message_is_parsed_without_a_panic(bytes in vec(any::<u8>(), 0..300), text in ".{0,300}", json in r#"[\[\]{}",:0-9a-z.-]{0,200}"#) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
        let _ = parse(&format!("loadtest.v1 {text}"));
        let _ = parse(&format!("loadtest.v1 {}", STANDARD.encode(&bytes)));
        let _ = parse(&format!("loadtest.v1 {}", STANDARD.encode(compress_to_vec_zlib(&bytes, 1))));
        let _ = parse(&message(&json));
    }

    #[test]
    fn modified_snapshot_is_parsed_without_a_panic(changes in vec((any::<prop::sample::Index>(), any::<char>()), 1..4), cut in any::<prop::sample::Index>()) {
        let json = r#"{"final":true,"first":1,"last":9,"load":[9,9,1000,1200,0.5],"delay":[3,0,9,9,1,[5,8],[]],"generator":[1,990,5,null,9,1,1,1,1,1],"counters":{"a":1},"histograms":{"h":[0,1,2,3,0,[5,1,-1,4],[]]},"dropped":[1,2],"lost":["x"]}"#;
        let changed = |text: &str| {
            let mut chars: Vec<_> = text.chars().collect();
            for (at, c) in &changes {
                *at.get_mut(&mut chars) = *c;
            }
            chars.truncate(cut.index(chars.len()) + 1);
            chars.into_iter().collect::<String>()
        };
        let _ = parse(&changed(&message(json)));
        if let Ok(mut all) = parse(&message(&changed(json))) {
            all.merge(&all.clone());
            let _ = summarize(&all, 1, 0);
        }
    }
}
