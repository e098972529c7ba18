//! The planned load and the measurements of generators in snapshots.

use super::*;
use crate::LoadPlan;

/// A snapshot with these keys besides its counters.
fn with_keys(keys: &str) -> Measurements {
    parse(&message(&format!(
        r#"{{"final":true,{keys}"counters":{{"vusers.created":90,"vusers.skipped":10}},"histograms":{{}}}}"#
    )))
    .unwrap()
}

const KEYS: &str = r#""load":[100,100,20000,21500,0],"delay":[3,0,1500,9000,50,[40,50],[]],
    "generator":[2,987,41.5,3,200,150,18000,1500,210,512],"#;

#[test]
fn load_of_a_worker_is_read() {
    let all = with_keys(KEYS);
    let expected = LoadPlan {
        vusers: 100.0,
        due: 100.0,
        random: 0.0,
        planned_seconds: 20.0,
        actual_seconds: 21.5,
    };
    assert_eq!(all.plan(), Some(expected));
    let delay = all.arrival_delay().unwrap();
    assert_eq!(
        (delay.count(), delay.error_percent(), delay.summary("max")),
        (100, 8, Some(1500.0))
    );
    let generator = all.generator().unwrap();
    assert_eq!(
        (
            generator.threads,
            generator.utilization,
            generator.loop_delay_ms
        ),
        (Some(2.0), Some(0.987), Some(41.5))
    );
    assert_eq!(
        (generator.throttled_share(), generator.throttled_ms),
        (Some(0.015), Some(150.0))
    );
    assert_eq!(
        (generator.cpu_ms, generator.cpu_limit),
        (Some(18_000.0), Some(1500.0))
    );
    assert_eq!(
        (generator.memory, generator.memory_limit),
        (Some(210.0), Some(512.0))
    );
    let load = summarize(&all, 1, 0).load.unwrap();
    assert_eq!(
        (
            load.planned_vusers,
            load.created_vusers,
            load.skipped_vusers
        ),
        (Some(100), 90, 10)
    );
    assert_eq!(
        (load.planned_seconds, load.actual_seconds),
        (Some(20.0), Some(21.5))
    );
}

#[test]
fn snapshot_without_a_valid_plan_leaves_it_unknown() {
    assert_eq!(with_keys("").plan(), None);
    for bad in [
        "null",
        "7",
        "\"5\"",
        "{}",
        "[]",
        "[1,2,3,4]",
        "[-1,0,1,1,0]",
        "[1,1,-1,1,0]",
        "[1,1,1,1e13,0]",
        "[1e17,1,1,1,0]",
        "[1,1,1,1,null]",
        "[1,\"1\",1,1,0]",
        "[1,1,1,1e999,0]",
    ] {
        let all = with_keys(&format!(r#""load":{bad},"#));
        assert_eq!(
            (all.plan(), all.workers, all.partial),
            (None, 1, 0),
            "{bad}"
        );
        assert_eq!(all.counter("vusers.created"), Some(90.0), "{bad}");
    }
    // Forged parts are limited by the whole.
    let plan = with_keys(r#""load":[100,900,1,1,900],"#).plan().unwrap();
    assert_eq!((plan.due, plan.random), (100.0, 100.0));
}

#[test]
fn plan_is_unknown_if_the_created_virtual_users_are() {
    let json =
        r#"{"final":true,"load":[9,9,1,1,0],"counters":{"vusers.created":"x"},"histograms":{}}"#;
    assert_eq!(parse(&message(json)).unwrap().plan(), None);
    let json = r#"{"final":true,"load":[9,9,1,1,0],"counters":{},"histograms":{}}"#;
    assert!(parse(&message(json)).unwrap().plan().is_some());
}

#[test]
fn invalid_delay_or_generator_is_unknown() {
    for bad in [
        "null",
        "[]",
        "[4,1,2,3,0,[5,1],[]]",
        "[3,1,2,3,0,[99999,1],[]]",
        "[3,1,2,3,-1,[],[]]",
        "{}",
    ] {
        let all = with_keys(&format!(r#""load":[1,1,1,1,0],"delay":{bad},"#));
        assert!(
            all.arrival_delay().is_none() && all.plan().is_some(),
            "{bad}"
        );
    }
    for bad in ["null", "[]", "[1,2]", "{}", "[1,2,3,4,5,6,7,8,9,1e999]"] {
        let all = with_keys(&format!(r#""generator":{bad},"#));
        assert!(all.generator().is_none(), "{bad}");
    }
    let all = with_keys(r#""generator":[-1,1001,1e99,9,5,"x",null,0,{},[]],"#);
    let generator = all.generator().unwrap();
    assert_eq!(generator.periods, Some(5.0));
    assert_eq!(
        *generator,
        crate::Generator {
            periods: Some(5.0),
            ..crate::Generator::default()
        }
    );
}

#[test]
fn worker_without_a_cpu_limit_has_no_throttling() {
    let all = with_keys(r#""generator":[1,400,25,0,0,0,9000,null,120,null],"#);
    let generator = all.generator().unwrap();
    assert_eq!(
        (generator.throttled_share(), generator.throttled_ms),
        (None, None)
    );
}

#[test]
fn loads_of_workers_are_merged() {
    let first = with_keys(KEYS);
    let second = with_keys(
        r#""load":[50,40,30000,30000,25.5],"delay":[3,0,2500,9000,0,[45,50],[]],"generator":[1,1,1,1,1,1,1,1,1,1],"#,
    );
    let merged = both(&first, &second, Measurements::merge);
    assert_eq!(
        merged.plan(),
        Some(LoadPlan {
            vusers: 150.0,
            due: 140.0,
            random: 25.5,
            planned_seconds: 30.0,
            actual_seconds: 30.0,
        })
    );
    let delay = merged.arrival_delay().unwrap();
    assert_eq!((delay.count(), delay.summary("max")), (150, Some(2500.0)));
    assert_eq!(merged.generator(), None);
    assert_eq!(merged, both(&second, &first, Measurements::merge));
    assert_eq!(
        both(&Measurements::default(), &first, Measurements::merge),
        first
    );

    let older = both(&first, &with_keys(""), Measurements::merge);
    assert_eq!(older.plan(), None);
    assert!(older.arrival_delay().is_some());
}

#[test]
fn load_is_read_from_a_message_that_the_kubelet_cut() {
    let counters: Vec<_> = (0..400_u32)
        .map(|n| format!(r#""custom.{}":1{n}"#, n.wrapping_mul(2_654_435_761)))
        .collect();
    let whole = message(&format!(
        r#"{{"final":true,{KEYS}"counters":{{"vusers.created":90,{}}},"histograms":{{}}}}"#,
        counters.join(",")
    ));
    let complete = parse(&whole).unwrap();
    let cut = parse(whole.get(..2048).unwrap()).unwrap();
    assert_eq!((cut.partial, cut.was_cut), (1, true));
    assert_eq!(cut.plan(), complete.plan());
    assert_eq!(cut.arrival_delay(), complete.arrival_delay());
    assert_eq!(cut.generator(), complete.generator());
    for bytes in 0..whole.len() {
        if let Ok(cut) = parse(whole.get(..bytes).unwrap()) {
            let counted = cut.counter("vusers.created");
            assert!(cut.plan().is_none() || counted == Some(90.0), "{bytes}");
        }
    }
}

#[test]
fn thresholds_name_the_planned_and_the_sent_load() {
    use crate::thresholds::{Outcome, evaluate};
    use loadtest_api::v1alpha1::Threshold;

    let evaluate_one = |all: &Measurements, expression: &str| {
        evaluate(&[Threshold::strict(expression)], all)
            .remove(0)
            .outcome
    };
    let all = with_keys(KEYS);
    for met in [
        "load.planned == 100 and load.created == 90 and load.skipped == 10",
        "load.skipped / load.planned * 100 <= 10",
        "load.arrival_delay.max == 1500 and load.arrival_delay.min == 0 and load.arrival_delay.p50 < 1000",
    ] {
        assert_eq!(evaluate_one(&all, met), Outcome::Met, "{met}");
    }
    assert_eq!(
        evaluate_one(&all, "load.arrival_delay.max < 200"),
        Outcome::NotMet
    );
    let older = both(&all, &with_keys(""), Measurements::merge);
    for unknown in ["load.planned > 0", "load.arrival_delay.max < 9000"] {
        let outcome = evaluate_one(&older, unknown);
        assert!(
            matches!(outcome, Outcome::Unknown(_)),
            "{unknown}: {outcome:?}"
        );
    }
    assert_eq!(evaluate_one(&older, "load.created == 180"), Outcome::Met);
}
