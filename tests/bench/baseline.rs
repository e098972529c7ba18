//! The baseline: the time that a bare client needs for the same Jobs under the same load of the control plane. LoadTests are
//! created as for the operator, with the same concurrency. As soon as one exists, the client creates the Job that the operator
//! would create. It writes no status and no event. The same components create, bind and run the pods. As for the operator, the
//! time is measured from the creation of the LoadTest until a watch delivers the Job. The operator has ended by then.

use std::time::{Duration, Instant};

use artillery_operator::build::build_job;
use artillery_operator::config::WorkerConfig;
use futures::channel::mpsc::unbounded;
use futures::{StreamExt, join, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use loadtest_script::ScriptInfo;

use crate::plan::Plan;
use crate::support::objects::from;
use crate::watch_recorder::WatchRecorder;
use crate::{BASELINE, load_average, load_test, table, until};

/// Returns the seconds from the creation of each LoadTest to its Job.
pub async fn measure(client: &Client, plan: &Plan) -> Vec<f64> {
    let tests: Api<LoadTest> = Api::namespaced(client.clone(), BASELINE);
    let jobs: Api<Job> = Api::namespaced(client.clone(), BASELINE);
    let settings = WorkerConfig::default();
    let recorder = WatchRecorder::follow(client, BASELINE).await;
    let begun = Instant::now();
    let (send_created, created) = unbounded::<LoadTest>();
    let create_tests = async {
        stream::iter(0..plan.tests)
            .for_each_concurrent(plan.concurrency, |i| {
                let (tests, recorder, send_created) = (&tests, &recorder, &send_created);
                async move {
                    let name = format!("baseline-{i:05}");
                    let test: LoadTest = from(load_test(&name, plan.count));
                    recorder.record_created(&name);
                    let test = tests
                        .create(&PostParams::default(), &test)
                        .await
                        .expect("a LoadTest is created");
                    send_created
                        .unbounded_send(test)
                        .expect("the receiver exists");
                }
            })
            .await;
        send_created.close_channel();
    };
    let create_jobs = created.for_each_concurrent(plan.concurrency, |test| {
        let (jobs, settings) = (&jobs, &settings);
        async move {
            let created = jobs
                .create(
                    &PostParams::default(),
                    &build_job(&test, settings, &ScriptInfo::default()),
                )
                .await;
            created.unwrap_or_else(|e| panic!("cannot create the Job {}: {e}", test.name_any()));
        }
    });
    join!(create_tests, create_jobs);
    println!(
        "baseline: {} LoadTests and Jobs in {:.1} s; load average {}",
        plan.tests,
        begun.elapsed().as_secs_f64(),
        load_average()
    );
    until("the baseline's Jobs", Duration::from_secs(60), async || {
        recorder.jobs() == plan.tests
    })
    .await;
    let took = recorder.create_to_job();
    println!(
        "baseline: LoadTest create -> Job, s: {}",
        table::quantiles(&took)
    );
    took
}
