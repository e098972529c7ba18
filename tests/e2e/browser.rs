//! The example with a browser: Chromium in the workers, in a namespace that enforces Pod Security `restricted`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use loadtest_api::v1alpha1::{Distribution, LoadTest, Verdict};

use crate::support::TestEnv;
use crate::{cluster, kubectl, until_completed_as_planned, until_service_is_ready};

const IMAGE: &str = "artilleryio/artillery:browser";

/// Returns the size of a mounted file system in a pod that runs, as `/proc/mounts` has it.
fn mounted_size(namespace: &str, pod: &Pod, path: &str) -> Option<String> {
    let mounts = kubectl(&[
        "exec",
        "-n",
        namespace,
        &pod.name_any(),
        "--",
        "cat",
        "/proc/mounts",
    ]);
    let line = mounts
        .lines()
        .find(|line| line.split(' ').nth(1) == Some(path))?;
    let size = line.split([' ', ',']).find(|o| o.starts_with("size="))?;
    Some(size.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn browser_example_measures_pages_in_restricted_pods() {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[&format!("--worker-image={IMAGE}")])
        .await;
    let apply = |example: &str| {
        kubectl(&[
            "apply",
            "-n",
            &env.namespace,
            "-k",
            &format!("hack/examples/browser-loadtest{example}"),
        ])
    };
    apply("/shop");
    until_service_is_ready(&env, &env.namespace, "shop").await;
    apply("");
    env.until_phase("browser", "Running").await;
    let pods = env.pods("browser", 2).await;
    assert_eq!(
        mounted_size(&env.namespace, &pods[0], "/dev/shm").as_deref(),
        Some("size=1048576k")
    );
    let spec = pods[0].spec.as_ref().unwrap();
    assert_eq!(
        spec.security_context.as_ref().unwrap().run_as_user,
        Some(1000)
    );
    let container = &spec.containers[0];
    let security = container.security_context.as_ref().unwrap();
    assert_eq!(security.read_only_root_filesystem, Some(true));

    let test = until_completed_as_planned(&env, "browser").await;
    check_results(&env, &test);
}

fn check_results(env: &TestEnv, test: &LoadTest) {
    let status = test.status.as_ref().unwrap();
    let results = status.results.as_ref().unwrap();
    for threshold in status.thresholds.iter().flatten() {
        assert_eq!(threshold.held, Some(true), "{threshold:?}");
    }
    assert_eq!(status.verdict, Some(Verdict::Passed), "{status:?}");
    assert_eq!(
        (results.vusers_completed, results.errors, results.partial),
        (20, 0, false)
    );

    // Both workers wait for one start time.
    let skew = results.start_skew_milliseconds.unwrap();
    assert!(skew < 2000, "the second worker started {skew} ms later");

    let path = format!(
        "/api/v1/namespaces/{}/services/shop/proxy/requests",
        env.namespace
    );
    let answered: BTreeMap<String, i64> =
        serde_json::from_str(&kubectl(&["get", "--raw", &path])).unwrap();
    let expected = ["/", "/products", "/basket"].map(|path| (path.to_owned(), 20));
    assert_eq!(answered, BTreeMap::from(expected));
    assert_eq!((results.requests, results.responses), (60, 60));
    assert_eq!(
        (results.codes[0].name.as_str(), results.codes[0].count),
        ("200", 60)
    );

    for name in [
        "browser.page.dominteractive",
        "browser.page.LCP.http://shop/",
        "browser.page.FCP.http://shop/",
        "browser.page.TTFB.http://shop/",
        "browser.page.CLS.http://shop/",
        "browser.step.open",
        "browser.step.add_to_basket",
    ] {
        let found = results.histograms.iter().find(|one| one.name == name);
        let Distribution {
            count, p50, p99, ..
        } = found.unwrap_or_else(|| panic!("{name} is missing in {:?}", results.histograms));
        assert_eq!(*count, 20, "{name}");
        assert!(*p50 > Some(0.0) && p50 <= p99, "{name}: {p50:?}, {p99:?}");
    }
}
