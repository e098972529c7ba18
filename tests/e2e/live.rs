//! Results while a test runs, and tests that are aborted.

use std::time::{Duration, Instant};

use loadtest_api::v1alpha1::{LoadTest, Results};
use serde_json::json;

use crate::support::{TestEnv, condition};
use crate::{
    cluster, create_script, deploy_target, kubectl, requests_answered, until_completed_as_planned,
};

fn results(test: &LoadTest) -> Option<&Results> {
    test.status.as_ref()?.results.as_deref()
}

/// A script that sends 5 requests per second for some time.
fn script(path: &str, seconds: u32) -> serde_json::Value {
    json!({"test-script.yaml": format!(
        "config: {{target: 'http://target.default', phases: [{{duration: {seconds}, arrivalRate: 5}}]}}\n\
         scenarios: [{{flow: [{{get: {{url: '{path}'}}}}]}}]\n")})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_running_workers_are_shown_and_agree_with_the_final_ones() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    create_script(&env, script("/live", 35)).await;
    env.start_operator(&[]).await;
    env.load_test_with("live", 4, json!({"environment": null}))
        .await;
    env.until_phase("live", "Running").await;
    let started = Instant::now();
    let mut shown: Vec<i64> = Vec::new();
    let mut last = Results::default();
    loop {
        let test = env.api::<LoadTest>().get("live").await.unwrap();
        match results(&test) {
            Some(results) if !results.live => break,
            Some(results) if shown.last() != Some(&results.requests) => {
                if shown.is_empty() {
                    // The load begins up to two seconds after the phase Running.
                    assert!(
                        started.elapsed() < Duration::from_secs(17),
                        "{:?}",
                        started.elapsed()
                    );
                    assert!(results.p95.is_some());
                    assert_eq!(results.workers_reporting, "4 of 4");
                }
                shown.push(results.requests);
                last = results.clone();
                let row = kubectl(&[
                    "get",
                    "loadtest",
                    "live",
                    "-n",
                    &env.namespace,
                    "-o",
                    "wide",
                    "--no-headers",
                ]);
                println!("{:.0} s: {row}", started.elapsed().as_secs_f64());
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(shown.len() >= 3, "{shown:?}");
    let ended = until_completed_as_planned(&env, "live").await;
    let results = results(&ended).unwrap();
    for (what, results) in [("last live", &last), ("final", results)] {
        let results = Results {
            series: None,
            ..results.clone()
        };
        println!("{what}: {}", serde_json::to_string(&results).unwrap());
    }
    assert_eq!(results.requests, 700);
    // Each worker sends 5 requests per second, and is read every 10 s. The status may be written 10 s later.
    assert!((300..=700).contains(&last.requests), "{}", last.requests);
    let series = results.series.as_ref().unwrap();
    println!("{}", serde_json::to_string(series).unwrap());
    assert_eq!(series.requests.iter().sum::<i64>(), 700);
    assert_eq!(series.vusers_created.iter().sum::<i64>(), 700);
    assert_eq!(series.vusers_planned.iter().sum::<i64>(), 700);
    assert_eq!(series.errors.iter().sum::<i64>(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_is_aborted_when_its_target_becomes_slow() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let path = format!("/{}", env.namespace);
    create_script(&env, script(&format!("{path}?delay=1500&after=15"), 120)).await;
    env.start_operator(&[]).await;
    let abort = json!([{"when": "http.response_time.p99 > 1000", "after": "5s"}]);
    env.load_test_with("abort", 2, json!({"environment": null, "abort": abort}))
        .await;
    env.until_phase("abort", "Running").await;
    let began = Instant::now();
    let failed = env.until_phase("abort", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "AbortConditionMet", "{message}");
    assert!(
        message.contains(
            "`http.response_time.p99 > 1000` held (spec.abort): http.response_time.p99 is 1"
        ),
        "{message}"
    );
    let sent = u32::try_from(requests_answered()[&path].as_u64().unwrap()).unwrap();
    // The target is slow from second 15 on, and 10 requests per second are sent.
    let seconds = f64::from(sent) / 10.0;
    println!(
        "aborted after {:.1} s, {:.1} s after the first slow response",
        began.elapsed().as_secs_f64(),
        seconds - 15.0
    );
    assert!(seconds < 15.0 + 25.0, "{seconds}");
    let later = requests_answered()[&path].as_u64();
    assert_eq!(Some(u64::from(sent)), later, "no load follows");
}
