//! The floor: what the API server takes for as many Jobs when nobody but a bare client asks for them.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::json;

use crate::seen::Seen;
use crate::{FLOOR, Plan, from, load, table, until};

/// Creates the Jobs, suspended, so that no pod is made, and removes them again. Gives the seconds of each creation.
pub async fn measure(client: &Client, plan: &Plan) -> Vec<f64> {
    let api: Api<Job> = Api::namespaced(client.clone(), FLOOR);
    let seen = Seen::follow(client, FLOOR).await;
    let begun = Instant::now();
    let took: Vec<f64> = stream::iter(0..plan.tests)
        .map(|i| {
            let (api, seen) = (&api, &seen);
            async move {
                let name = format!("floor-{i:05}");
                let job = job(&name, plan.count);
                seen.note_created(&name);
                let begun = Instant::now();
                api.create(&PostParams::default(), &job).await.expect("a Job is created");
                begun.elapsed().as_secs_f64()
            }
        })
        .buffer_unordered(plan.concurrency)
        .collect()
        .await;
    println!("floor: created {} Jobs in {:.1} s; load average {}", took.len(), begun.elapsed().as_secs_f64(), load());
    until("the floor's Jobs", Duration::from_secs(60), async || seen.jobs() == plan.tests).await;
    println!(
        "floor: Job create, s: {}; Job create -> seen, s: {}",
        table::quantiles(&took),
        table::quantiles(&seen.create_to_job())
    );

    api.delete_collection(&DeleteParams::background(), &ListParams::default()).await.expect("the Jobs are deleted");
    until("the deletion of the floor's Jobs", Duration::from_secs(120), async || seen.all_jobs_are_gone()).await;
    // The Job controller looks at each once more.
    tokio::time::sleep(Duration::from_secs(3)).await;
    took
}

fn job(name: &str, count: usize) -> Job {
    from(json!({"metadata": {"name": name}, "spec": {
        "suspend": true, "completionMode": "Indexed", "completions": count, "parallelism": count, "backoffLimit": 0,
        "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "worker", "image": "worker"}]}},
    }}))
}
