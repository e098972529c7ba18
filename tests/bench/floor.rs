//! The floor: what a bare client needs for the same Jobs, while the control plane is as busy. LoadTests are created as for
//! the operator, as many at a time; as soon as one is there, a client that is told so in its own process, and has neither
//! a status nor an event to write, creates the Job that the operator would, as many at a time as LoadTests. Their pods are
//! made, bound and run by the same parts. What is taken is the time from the begin of the LoadTest's creation until a
//! watch shows the Job: the same as of the operator. The operator has ended by then.

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

use crate::seen::Seen;
use crate::{FLOOR, Plan, from, load, load_test, table, until};

/// Gives the seconds from the creation of each LoadTest to its Job.
pub async fn measure(client: &Client, plan: &Plan) -> Vec<f64> {
    let tests: Api<LoadTest> = Api::namespaced(client.clone(), FLOOR);
    let jobs: Api<Job> = Api::namespaced(client.clone(), FLOOR);
    let settings = WorkerConfig::default();
    let seen = Seen::follow(client, FLOOR).await;
    let begun = Instant::now();
    let (there, created) = unbounded::<LoadTest>();
    let create_tests = async {
        stream::iter(0..plan.tests)
            .for_each_concurrent(plan.concurrency, |i| {
                let (tests, seen, there) = (&tests, &seen, &there);
                async move {
                    let name = format!("floor-{i:05}");
                    let test: LoadTest = from(load_test(&name, plan.count));
                    seen.note_created(&name);
                    let test = tests
                        .create(&PostParams::default(), &test)
                        .await
                        .expect("a LoadTest is created");
                    there.unbounded_send(test).expect("it is waited for");
                }
            })
            .await;
        there.close_channel();
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
        "floor: {} LoadTests and Jobs in {:.1} s; load average {}",
        plan.tests,
        begun.elapsed().as_secs_f64(),
        load()
    );
    until("the floor's Jobs", Duration::from_secs(60), async || {
        seen.jobs() == plan.tests
    })
    .await;
    let took = seen.create_to_job();
    println!(
        "floor: LoadTest create -> Job seen, s: {}",
        table::quantiles(&took)
    );
    took
}
