//! The process: its start, its end, its probes and metrics, and two of them.

use std::time::{Duration, Instant};

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;

use crate::support::{Bed, control_plane, http_get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_metrics_answer_and_it_ends_when_asked() {
    let mut bed = Bed::with_operator(control_plane()).await;
    bed.load_test("m", 1).await;
    bed.set_exited(&bed.pods("m", 1).await[0], 0, "").await;
    bed.until_phase("m", "Completed").await;
    let (probes, metrics) = (bed.operator(0).probes, bed.operator(0).metrics);
    assert_eq!(http_get(probes, "/healthz").await.unwrap().0, 200);
    assert_eq!(http_get(probes, "/else").await.unwrap().0, 404);
    let text = http_get(metrics, "/metrics").await.unwrap().1;
    assert!(text.contains("artillery_operator_leader 1"), "{text}");
    assert!(!text.contains("reconcile_errors_total{"), "no reconcile failed:\n{text}");
    assert_eq!(bed.operator(0).terminate().await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_operators_one_works_and_the_other_takes_over() {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    bed.start_operator(&["--leader-elect"]).await;
    let holder = async |bed: &Bed| {
        let lease: Lease = bed.until_exists("84f84c74.artillery.io").await;
        lease.spec.unwrap().holder_identity.unwrap()
    };
    let first = holder(&bed).await;
    bed.start_operator(&["--leader-elect"]).await;
    bed.load_test("one", 1).await;
    bed.set_exited(&bed.pods("one", 1).await[0], 0, "").await;
    bed.until_phase("one", "Completed").await;
    assert_eq!(bed.event_reasons("one").await, ["Created", "Running", "Completed"]);

    let begun = Instant::now();
    assert_eq!(bed.operator(0).terminate().await, 0);
    bed.load_test("two", 1).await;
    bed.until_exists::<Job>("two").await;
    assert!(begun.elapsed() < Duration::from_secs(5), "the lease was not released: {:?}", begun.elapsed());
    assert_ne!(holder(&bed).await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_duration_advances_while_a_test_runs() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test("long", 1).await;
    bed.set_running(&bed.pods("long", 1).await[0]).await;
    let begun = bed.until_phase("long", "Running").await.status.unwrap().duration;
    let later = bed.until_test("long", "its duration advances", |t| t.status.as_ref().unwrap().duration != begun).await;
    let status = later.status.unwrap();
    let seconds = artillery_operator::duration::parse(&status.duration.unwrap()).unwrap().as_secs();
    assert!((9..15).contains(&seconds), "after about 10 s: {seconds}");
}
