//! A real Prometheus scrapes the ports of running workers. Its scrape configurations are those that the Prometheus operator makes of the
//! PodMonitor, and the one in the documentation for a Prometheus without an operator.
//!
//! Debian's Prometheus is built without the discovery of Kubernetes. The test takes its place, with the same labels, by files.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::support::{TestEnv, http_get};
use super::{cluster, create_script, deploy_target, requests_answered, until_completed_as_planned};

const POD_MONITOR: &str = include_str!("../../config/prometheus/pod_monitor.yaml");
const DOCUMENTATION: &str = include_str!("../../docs/user/published-metrics.md");

/// The scrape configuration that the Prometheus operator makes of the PodMonitor.
///
/// Source: prometheus-operator, `pkg/prometheus/promcfg.go`, `generatePodMonitorConfig`, for one shard.
fn scrape_config_of_pod_monitor() -> Value {
    let monitor: Value = serde_yaml::from_str(POD_MONITOR).unwrap();
    let spec = &monitor["spec"];
    assert_eq!(spec["namespaceSelector"], json!({"any": true}));
    let endpoints = spec["podMetricsEndpoints"].as_array().unwrap();
    let [endpoint] = endpoints.as_slice() else {
        panic!("one scrape configuration for each endpoint: {endpoints:?}")
    };
    let labels = spec["selector"]["matchLabels"].as_object().unwrap();
    let name = format!(
        "{}/{}",
        monitor["metadata"]["namespace"].as_str().unwrap(),
        monitor["metadata"]["name"].as_str().unwrap()
    );
    let mut rules = vec![
        json!({"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"}),
        json!({"action": "drop", "source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)"}),
    ];
    for (label, value) in labels {
        let label = sanitized(label);
        let source = [
            format!("__meta_kubernetes_pod_label_{label}"),
            format!("__meta_kubernetes_pod_labelpresent_{label}"),
        ];
        let regex = format!("({});true", value.as_str().unwrap());
        rules.push(json!({"action": "keep", "source_labels": source, "regex": regex}));
    }
    rules.push(
        json!({"action": "keep", "source_labels": ["__meta_kubernetes_pod_container_port_name"],
        "regex": endpoint["port"]}),
    );
    for (source, target) in [
        ("namespace", "namespace"),
        ("pod_container_name", "container"),
        ("pod_name", "pod"),
    ] {
        let source = format!("__meta_kubernetes_{source}");
        rules.push(json!({"source_labels": [source], "target_label": target}));
    }
    rules.push(json!({"target_label": "job", "replacement": name}));
    rules.push(json!({"target_label": "endpoint", "replacement": endpoint["port"]}));
    json!({
        "job_name": format!("podMonitor/{name}/0"),
        "honor_labels": endpoint["honorLabels"],
        "scrape_interval": endpoint["interval"],
        "metrics_path": endpoint["path"],
        "kubernetes_sd_configs": [{"role": "pod"}],
        "relabel_configs": rules,
    })
}

/// The scrape configurations of the documentation.
fn documented_scrape_configs() -> Vec<Value> {
    let (_, from) = DOCUMENTATION
        .split_once("```yaml\nscrape_configs:\n")
        .unwrap();
    let (block, _) = from.split_once("```").unwrap();
    serde_yaml::from_str(block).unwrap()
}

/// The queries of the dashboard about a test.
fn dashboard_queries(namespace: &str, loadtest: &str) -> Vec<String> {
    let dashboard: Value = serde_json::from_str(include_str!(
        "../../config/prometheus/loadtest_dashboard.json"
    ))
    .unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let with_variables = |target: &Value| {
        let text = target["expr"].as_str().unwrap();
        text.replace("$namespace", namespace)
            .replace("$loadtest", loadtest)
            .replace("$__range", "5m")
            .replace("$__rate_interval", "40s")
    };
    targets.map(with_variables).collect()
}

/// The targets that the role `pod` of Prometheus' discovery finds: one for each port of a container.
///
/// Source: Prometheus, `discovery/kubernetes/pod.go`, `buildPod`. Labels that no test uses are missing.
fn targets(pods: &[Pod]) -> Value {
    let mut targets = Vec::new();
    for pod in pods {
        let status = pod.status.as_ref().unwrap();
        let Some(ip) = &status.pod_ip else { continue };
        let mut labels = Map::new();
        let mut add = |name: &str, value: &str| {
            labels.insert(format!("__meta_kubernetes_{name}"), json!(value));
        };
        add("namespace", &pod.namespace().unwrap());
        add("pod_name", &pod.name_any());
        add("pod_phase", status.phase.as_ref().unwrap());
        for (label, value) in pod.labels() {
            add(&format!("pod_label_{}", sanitized(label)), value);
            add(&format!("pod_labelpresent_{}", sanitized(label)), "true");
        }
        for container in &pod.spec.as_ref().unwrap().containers {
            for port in container.ports.iter().flatten() {
                let mut labels = labels.clone();
                let mut add = |name: &str, value: &str| {
                    labels.insert(
                        format!("__meta_kubernetes_pod_container_{name}"),
                        json!(value),
                    );
                };
                add("name", &container.name);
                add("port_name", port.name.as_deref().unwrap_or_default());
                let address = format!("{ip}:{}", port.container_port);
                targets.push(json!({"targets": [address], "labels": labels}));
            }
        }
    }
    json!(targets)
}

/// A label's name in Prometheus.
fn sanitized(label: &str) -> String {
    label.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
}

/// A file of targets, which is rewritten whenever pods change.
async fn discover(pods: Api<Pod>, selector: String, file: PathBuf) {
    let mut found = String::new();
    loop {
        let list = pods.list(&ListParams::default().labels(&selector)).await;
        let text = targets(&list.unwrap().items).to_string();
        if text != found {
            let new = file.with_extension("new");
            fs::write(&new, &text).unwrap();
            fs::rename(&new, &file).unwrap();
            found = text;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// A Prometheus process and its discovery. Both end when this is dropped.
struct Prometheus {
    process: Child,
    port: u16,
    folder: PathBuf,
    discovery: JoinSet<()>,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.discovery.abort_all();
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Prometheus {
    async fn start(env: &TestEnv, mut scrape_configs: Vec<Value>) -> Self {
        let folder = std::env::temp_dir().join(format!("prometheus-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let mut discovery = JoinSet::new();
        for (i, config) in scrape_configs.iter_mut().enumerate() {
            let kubernetes = config
                .as_object_mut()
                .unwrap()
                .remove("kubernetes_sd_configs");
            let [kubernetes] = kubernetes
                .as_ref()
                .and_then(Value::as_array)
                .unwrap()
                .as_slice()
            else {
                panic!("one kind of discovery: {kubernetes:?}")
            };
            assert_eq!(kubernetes["role"], "pod");
            let selector = kubernetes
                .pointer("/selectors/0/label")
                .and_then(Value::as_str);
            let file = folder.join(format!("targets-{i}.json"));
            config["file_sd_configs"] = json!([{"files": [&file]}]);
            let pods = Api::all(env.client.clone());
            discovery.spawn(discover(
                pods,
                selector.unwrap_or_default().to_owned(),
                file,
            ));
        }
        let (config, log) = (folder.join("prometheus.yaml"), folder.join("log"));
        let text = json!({"scrape_configs": scrape_configs}).to_string();
        fs::write(&config, text).unwrap();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .expect("the Debian package prometheus is installed");
        let mut prometheus = Self {
            process,
            port: 0,
            folder,
            discovery,
        };
        prometheus.port = env
            .until("Prometheus listens", async || {
                let log = fs::read_to_string(&log).unwrap();
                let ended = prometheus.process.try_wait().unwrap();
                assert_eq!(ended, None, "Prometheus has ended: {log}");
                let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
                line.rsplit_once(':')?.1.trim().parse().ok()
            })
            .await;
        prometheus
    }

    /// The values of an instant query, with their labels.
    async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let encoded = expression
            .bytes()
            .fold(String::new(), |text, byte| text + &format!("%{byte:02X}"));
        let path = format!("/api/v1/query?query={encoded}");
        let (status, body) = http_get(self.port, &path).await.unwrap();
        assert_eq!(status, 200, "{expression}: {body}");
        let response: Value = serde_json::from_str(&body).unwrap();
        let series = response["data"]["result"].as_array().unwrap().iter();
        let value = |series: &Value| series["value"][1].as_str().unwrap().parse().unwrap();
        series.map(|s| (s["metric"].clone(), value(s))).collect()
    }

    async fn value(&self, expression: &str) -> Option<f64> {
        self.query(expression)
            .await
            .first()
            .map(|(_, value)| *value)
    }
}

/// A script in which one of ten requests is slow. The workers run on for longer than two scrape intervals after the last one.
fn script(path: &str) -> Value {
    let fast = format!("{{loop: [{{get: {{url: '{path}'}}}}], count: 9}}");
    let slow = format!("{{get: {{url: '{path}-slow?delay=300'}}}}");
    json!({"test-script.yaml": format!(
        "config: {{target: 'http://target.default', phases: [{{duration: 10, arrivalRate: 2}}, {{pause: 25}}]}}\n\
         scenarios: [{{flow: [{fast}, {slow}]}}]\n")})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prometheus_that_scrapes_the_workers_agrees_with_the_results() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    let path = format!("/{}", env.namespace);
    create_script(&env, script(&path)).await;
    let operator_config = scrape_config_of_pod_monitor();
    let mut configs = documented_scrape_configs();
    let jobs = ["system/loadtest-workers", "loadtest-workers"];
    assert_eq!(configs[0]["job_name"], jobs[1]);
    configs.push(operator_config);
    let prometheus = Prometheus::start(&env, configs).await;
    env.start_operator(&[]).await;
    env.load_test_with("scraped", 2, json!({"environment": null}))
        .await;
    env.until_phase("scraped", "Running").await;
    let ended = until_completed_as_planned(&env, "scraped").await;
    let results = ended.status.as_ref().unwrap().results.as_ref().unwrap();
    let answered = requests_answered();
    let sent = [&path, &format!("{path}-slow")].map(|path| answered[path].as_i64().unwrap());
    assert_eq!((sent, results.requests), ([360, 40], 400));
    let p95 = results.response_time().and_then(|times| times.p95).unwrap() / 1000.0;

    for job in jobs {
        let labels = format!(
            "job=\"{job}\",namespace=\"{}\",loadtest=\"scraped\"",
            env.namespace
        );
        // The workers have ended, and their series are stale.
        let last = |metric: &str| format!("last_over_time({metric}{{{labels}}}[5m])");
        let requests = prometheus
            .query(&last("artillery_http_requests_total"))
            .await;
        let mut workers: Vec<_> = requests
            .iter()
            .map(|(labels, n)| (labels["worker"].clone(), *n))
            .collect();
        workers.sort_by_key(|(worker, _)| worker.to_string());
        assert_eq!(workers, [(json!("0"), 200.0), (json!("1"), 200.0)], "{job}");
        let created = last("artillery_vusers_total");
        assert_eq!(
            prometheus.value(&format!("sum({created})")).await,
            Some(80.0),
            "created and completed"
        );

        let buckets = last("artillery_http_response_time_seconds_bucket");
        let quantile = format!("histogram_quantile(0.95, sum by (le) ({buckets}))");
        let quantile = prometheus.value(&quantile).await.unwrap();
        let bounds = prometheus.query(&format!("sum by (le) ({buckets})")).await;
        let mut bounds: Vec<f64> = bounds
            .iter()
            .map(|(labels, _)| labels["le"].as_str().unwrap().parse().unwrap())
            .collect();
        bounds.sort_by(f64::total_cmp);
        let bucket = |seconds: f64| bounds.iter().position(|bound| seconds <= *bound);
        println!(
            "{job}: p95 {p95} s in the results, {quantile} s of {} buckets",
            bounds.len()
        );
        assert!(p95 > 0.3, "{p95}");
        assert_eq!(bucket(quantile), bucket(p95), "{quantile} {p95} {bounds:?}");
    }

    for expression in dashboard_queries(&env.namespace, "scraped") {
        // There are no errors.
        let is_empty = expression.starts_with("sum by (error)");
        let shown = prometheus
            .query(&format!("last_over_time(({expression})[3m:5s])"))
            .await;
        assert_eq!(
            shown.is_empty(),
            is_empty,
            "a panel of the dashboard: {expression}"
        );
    }
}
