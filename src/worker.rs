//! What the operator gives each worker besides the user's files: small files of JavaScript, in a `ConfigMap` of each
//! namespace, and the environment that switches them on. Pure.

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, DownwardAPIProjection, DownwardAPIVolumeFile, EnvVar,
    EnvVarSource, KeyToPath, ObjectFieldSelector, Probe, ProjectedVolumeSource,
    ResourceFieldSelector, TCPSocketAction, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::v1alpha1::Load;
use crate::job::COMPONENT_LABEL;
use crate::report::fnv1a;

/// The annotation of a worker's pod that says when its load is to begin.
pub const START_ANNOTATION: &str = "loadtest.artillery.io/start-at";

/// What the annotation says when a worker is told its instant so many times: the same instant in other words, with a digit more
/// each time, as a kubelet looks at a pod anew only if it has changed.
#[must_use]
pub fn instant(at: Timestamp, times: u8) -> String {
    let nanoseconds = format!("{:09}", at.subsec_nanosecond().unsigned_abs());
    let digits = nanoseconds
        .get(..usize::from(times).saturating_add(2).clamp(3, 9))
        .unwrap_or_default();
    format!("{}.{digits}Z", at.strftime("%Y-%m-%dT%H:%M:%S"))
}

/// How many times a worker was told that has this annotation.
#[must_use]
pub fn times_told(annotation: &str) -> u8 {
    let digits = annotation.split_once('.').map_or(0, |(_, rest)| {
        rest.bytes().take_while(u8::is_ascii_digit).count()
    });
    u8::try_from(digits.saturating_sub(2))
        .unwrap_or(u8::MAX)
        .max(1)
}

/// The component label's value of the `ConfigMap` of the files: `operator-undeploy.sh` removes them by it.
const FILES_COMPONENT: &str = "loadtest-worker-files";

/// The file in the folder that holds what the annotation says.
const START_FILE: &str = "start-at";

/// The port on which a worker listens once it could begin its load.
const READY_PORT: i32 = 8899;

/// And the port on which it listens once it knows when to begin.
const INFORMED_PORT: i32 = 8898;

/// Where the files are in a worker.
pub const FOLDER: &str = "/opt/loadtest";

/// The files by their names in the `ConfigMap`, their paths in the folder, and their texts.
const FILES: [(&str, &str, &str); 5] = [
    ("files.cjs", "files.cjs", include_str!("worker/files.cjs")),
    ("cpus.cjs", "cpus.cjs", include_str!("worker/cpus.cjs")),
    (
        "divide.js",
        "artillery-plugin-loadtest-divide/index.js",
        include_str!("worker/divide.js"),
    ),
    (
        "together.js",
        "artillery-plugin-loadtest-together/index.js",
        include_str!("worker/together.js"),
    ),
    (
        "results.js",
        "artillery-plugin-loadtest-results/index.js",
        include_str!("worker/results.js"),
    ),
];

/// The name of the `ConfigMap`: another for other files, so that workers of an older operator keep theirs.
#[must_use]
pub fn name() -> String {
    let all = FILES
        .iter()
        .flat_map(|(_, path, text)| path.bytes().chain(text.bytes()));
    format!("loadtest-worker-{:016x}", fnv1a(all))
}

/// The `ConfigMap` of the files.
#[must_use]
pub fn config_map(namespace: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name()),
            namespace: Some(namespace.to_owned()),
            labels: Some(
                [
                    ("app.kubernetes.io/managed-by", "artillery-operator"),
                    (COMPONENT_LABEL, FILES_COMPONENT),
                ]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            ),
            ..ObjectMeta::default()
        },
        data: Some(
            FILES
                .iter()
                .map(|(key, _, text)| ((*key).to_owned(), (*text).to_owned()))
                .collect(),
        ),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

/// The volume of the files, and of the file that tells the worker when its load is to begin.
#[must_use]
pub fn volume(volume: &str) -> Volume {
    let item = |(key, path, _): &(&str, &str, &str)| KeyToPath {
        key: (*key).into(),
        path: (*path).into(),
        mode: None,
    };
    let files = ConfigMapProjection {
        name: name(),
        items: Some(FILES.iter().map(item).collect()),
        ..ConfigMapProjection::default()
    };
    let start = DownwardAPIVolumeFile {
        path: START_FILE.into(),
        field_ref: Some(field(&format!(
            "metadata.annotations['{START_ANNOTATION}']"
        ))),
        ..DownwardAPIVolumeFile::default()
    };
    let sources = vec![
        VolumeProjection {
            config_map: Some(files),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection {
                items: Some(vec![start]),
            }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource {
        sources: Some(sources),
        ..ProjectedVolumeSource::default()
    };
    Volume {
        name: volume.into(),
        projected: Some(projected),
        ..Volume::default()
    }
}

/// The startup probe and the readiness probe of a worker that waits for the others: whether it could begin, and whether it
/// knows when to. A readiness probe begins once the startup probe has succeeded, and the pod is ready while its load runs.
#[must_use]
pub fn probes() -> (Probe, Probe) {
    let listens = |port| Probe {
        tcp_socket: Some(TCPSocketAction {
            port: IntOrString::Int(port),
            ..TCPSocketAction::default()
        }),
        period_seconds: Some(1),
        ..Probe::default()
    };
    // How long a worker may take is for `startDeadlineSeconds` to say.
    (
        Probe {
            failure_threshold: Some(i32::MAX),
            ..listens(READY_PORT)
        },
        listens(INFORMED_PORT),
    )
}

/// What the environment of a worker depends on.
#[derive(Default)]
pub struct Share<'a> {
    /// How many workers there are.
    pub workers: i32,
    /// Whether they share the script's load.
    pub load: Load,
    /// Whether they begin their load together.
    pub together: bool,
    /// Whether the script's `ensure` is judged over all workers, and so not by each.
    pub is_judged: bool,
    /// The test's own thresholds: what these name the workers keep in their results.
    pub thresholds: &'a [String],
    /// The folders whose files are to be linked into /data, where they are not mounted there.
    pub folders: Vec<&'static str>,
}

/// The environment of a worker's container, with the user's own variables: those that are of us both are joined, of others
/// the user's come later, and so hold.
#[must_use]
pub fn environment(share: &Share<'_>, users: Vec<EnvVar>) -> Vec<EnvVar> {
    let mut plugins = vec!["loadtest-results"];
    let mut environment = vec![
        // Artillery's Prometheus reporter names its group on the Pushgateway by this.
        from_field("WORKER_ID", "metadata.name"),
        // Artillery crashes without a home, and a numeric user has none.
        plain("HOME", "/tmp"),
        plain("ARTILLERY_DISABLE_TELEMETRY", "true"),
        EnvVar {
            name: "LOADTEST_CPU_REQUEST_MILLIS".into(),
            value_from: Some(EnvVarSource {
                resource_field_ref: Some(ResourceFieldSelector {
                    resource: "requests.cpu".into(),
                    divisor: Some(Quantity("1m".into())),
                    container_name: None,
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
    ];
    // Where it matters it is said even of one: `envFrom` could say otherwise.
    if share.workers > 1 || share.load == Load::Divide {
        environment.push(plain("LOADTEST_WORKERS", &share.workers.to_string()));
    }
    if share.load == Load::Divide {
        // Without the plugin it names each worker would send the whole load: it ends at once then.
        environment.push(plain("LOADTEST_DIVIDE", "true"));
        plugins.insert(0, "loadtest-divide");
    }
    if share.together {
        environment.push(plain(
            "LOADTEST_START_FILE",
            &format!("{FOLDER}/{START_FILE}"),
        ));
        environment.push(plain("LOADTEST_READY_PORT", &READY_PORT.to_string()));
        environment.push(plain("LOADTEST_INFORMED_PORT", &INFORMED_PORT.to_string()));
        plugins.push("loadtest-together");
    }
    if share.is_judged {
        environment.push(plain("ARTILLERY_DISABLE_ENSURE", "true"));
    }
    let mut preloads = format!("--require={FOLDER}/cpus.cjs");
    if !share.folders.is_empty() {
        environment.push(plain("LOADTEST_FILES", &share.folders.join(":")));
        preloads = format!("--require={FOLDER}/files.cjs {preloads}");
    }
    // The scope, in case that a script has another for its own plugins.
    let mut plugins: Map<String, Value> = plugins
        .into_iter()
        .map(|name| (name.to_owned(), json!({"scope": "artillery-plugin-"})))
        .collect();
    if !share.thresholds.is_empty() {
        plugins["loadtest-results"]["keep"] = json!(share.thresholds);
    }
    let (mut options, mut path, mut all) = (preloads, FOLDER.to_owned(), plugins.clone());
    let mut others = Vec::new();
    for variable in users {
        match (variable.name.as_str(), &variable.value) {
            ("NODE_OPTIONS", Some(value)) => options = format!("{options} {value}"),
            ("ARTILLERY_PLUGIN_PATH", Some(value)) => path = format!("{path}:{value}"),
            (PLUGINS, Some(value)) => {
                all.extend(serde_json::from_str::<Map<_, _>>(value).unwrap_or_default())
            }
            // Such a test does not start: see `environment_fault`.
            (name, _) if JOINED.contains(&name) || is_reserved(name) => {}
            _ => others.push(variable),
        }
    }
    all.extend(plugins);
    // They may refer to the user's others, which so have to come before.
    environment.extend(others);
    environment.push(plain("NODE_OPTIONS", &options));
    environment.push(plain("ARTILLERY_PLUGIN_PATH", &path));
    environment.push(plain("ARTILLERY_PLUGINS", &Value::Object(all).to_string()));
    environment
}

/// The variables that the operator joins with the user's.
pub const JOINED: [&str; 3] = ["NODE_OPTIONS", PLUGINS, "ARTILLERY_PLUGIN_PATH"];
const PLUGINS: &str = "ARTILLERY_PLUGINS";

/// The variables that tell a worker which of them it is; and those with the prefix.
pub const RESERVED: [&str; 2] = ["JOB_COMPLETION_INDEX", "WORKER_ID"];
/// What the names of the operator's own variables begin with.
pub const RESERVED_PREFIX: &str = "LOADTEST_";

/// What is wrong with a user's variables, if anything is: workers with these would each send the whole of a divided load, or
/// keep no results.
#[must_use]
pub fn environment_fault(users: &[EnvVar]) -> Option<String> {
    users.iter().find_map(|variable| {
        let name = variable.name.as_str();
        if is_reserved(name) {
            return Some(format!("{name} is the operator's: choose another name"));
        }
        if JOINED.contains(&name) && variable.value_from.is_some() {
            return Some(format!("{name} is joined with the operator's own, so it needs a value, and valueFrom is not read"));
        }
        let value = variable.value.as_deref().filter(|_| name == PLUGINS)?;
        let error = serde_json::from_str::<Map<String, Value>>(value).err()?;
        Some(format!("{name} is no JSON object: {error}"))
    })
}

fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.starts_with(RESERVED_PREFIX)
}

fn plain(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        ..EnvVar::default()
    }
}

fn field(path: &str) -> ObjectFieldSelector {
    ObjectFieldSelector {
        field_path: path.into(),
        ..ObjectFieldSelector::default()
    }
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let source = EnvVarSource {
        field_ref: Some(field(path)),
        ..EnvVarSource::default()
    };
    EnvVar {
        name: name.into(),
        value_from: Some(source),
        ..EnvVar::default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn value_of(environment: &[EnvVar], name: &str) -> Option<String> {
        environment
            .iter()
            .rev()
            .find(|v| v.name == name)
            .and_then(|v| v.value.clone())
    }

    #[test]
    fn variables_that_the_operator_needs_are_joined_with_the_users() {
        let users = [
            ("NODE_OPTIONS", "--max-old-space-size=200"),
            (
                "ARTILLERY_PLUGINS",
                r#"{"mine": {"a": 1}, "loadtest-results": 3}"#,
            ),
            ("HOME", "/home"),
        ];
        let share = Share {
            workers: 3,
            load: Load::Divide,
            ..Share::default()
        };
        let all = environment(&share, users.map(|(name, value)| plain(name, value)).into());
        assert_eq!(
            value_of(&all, "NODE_OPTIONS").unwrap(),
            "--require=/opt/loadtest/cpus.cjs --max-old-space-size=200"
        );
        let plugins: Value =
            serde_json::from_str(&value_of(&all, "ARTILLERY_PLUGINS").unwrap()).unwrap();
        let ours = json!({"scope": "artillery-plugin-"});
        assert_eq!(
            plugins,
            json!({"loadtest-divide": ours, "loadtest-results": ours, "mine": {"a": 1}})
        );
        assert_eq!(
            value_of(&all, "HOME").unwrap(),
            "/home",
            "the user's own holds"
        );
        assert_eq!(value_of(&all, "LOADTEST_WORKERS").unwrap(), "3");
        assert_eq!(value_of(&all, "LOADTEST_DIVIDE").unwrap(), "true");
        assert_eq!(value_of(&all, "LOADTEST_FILES"), None);
    }

    #[test]
    fn a_worker_that_has_all_the_load_is_not_told_of_others() {
        let share = Share {
            workers: 1,
            folders: vec!["/sources/a", "/sources/b"],
            ..Share::default()
        };
        let all = environment(&share, Vec::new());
        assert_eq!(value_of(&all, "LOADTEST_WORKERS"), None);
        assert!(
            !value_of(&all, "ARTILLERY_PLUGINS")
                .unwrap()
                .contains("divide")
        );
        assert_eq!(
            value_of(&all, "LOADTEST_FILES").unwrap(),
            "/sources/a:/sources/b"
        );
        assert!(
            value_of(&all, "NODE_OPTIONS")
                .unwrap()
                .starts_with("--require=/opt/loadtest/files.cjs ")
        );
    }

    #[test]
    fn no_variable_of_a_user_switches_the_operators_off() {
        let from = |name: &str| from_field(name, "metadata.name");
        for (variable, why) in [
            (plain("LOADTEST_WORKERS", "1"), "is the operator's"),
            (from("JOB_COMPLETION_INDEX"), "is the operator's"),
            (plain("WORKER_ID", "all"), "is the operator's"),
            (from("NODE_OPTIONS"), "valueFrom is not read"),
            (from("ARTILLERY_PLUGINS"), "valueFrom is not read"),
            (from("ARTILLERY_PLUGIN_PATH"), "valueFrom is not read"),
            (
                plain("ARTILLERY_PLUGINS", "{a: 1}"),
                "is no JSON object: key must be a string at line 1 column 2",
            ),
            (plain("ARTILLERY_PLUGINS", "[]"), "is no JSON object"),
        ] {
            let told = environment_fault(std::slice::from_ref(&variable)).unwrap();
            assert!(
                told.starts_with(&variable.name) && told.contains(why),
                "{told}"
            );
            let share = Share {
                workers: 2,
                load: Load::Divide,
                folders: vec!["/a"],
                ..Share::default()
            };
            assert_eq!(
                environment(&share, vec![variable]),
                environment(&share, Vec::new())
            );
        }
        let fine = [
            plain("ARTILLERY_PLUGINS", "{}"),
            plain("NODE_OPTIONS", "$(MORE)"),
            from("NAME"),
            plain("MORE", ""),
        ];
        assert_eq!(environment_fault(&fine), None);
        let all = environment(&Share::default(), fine.into());
        let place = |name| all.iter().position(|v| v.name == name);
        assert!(
            place("MORE") < place("NODE_OPTIONS"),
            "what is referred to comes before"
        );
        let alone = environment(
            &Share {
                workers: 1,
                load: Load::Divide,
                ..Share::default()
            },
            Vec::new(),
        );
        assert_eq!(value_of(&alone, "LOADTEST_WORKERS").unwrap(), "1");
    }

    #[test]
    fn an_instant_is_told_again_in_other_words() {
        let at: Timestamp = "2026-11-25T10:00:00.12Z".parse().unwrap();
        for (times, text) in [
            (1, "2026-11-25T10:00:00.120Z"),
            (2, "2026-11-25T10:00:00.1200Z"),
            (3, "2026-11-25T10:00:00.12000Z"),
        ] {
            assert_eq!(
                (
                    instant(at, times).as_str(),
                    times_told(text),
                    text.parse().ok()
                ),
                (text, times, Some(at))
            );
        }
        assert_eq!(times_told("2026-11-25T10:00:00Z"), 1);
    }

    #[test]
    fn the_files_have_a_name_that_fits_and_a_place_each() {
        assert!(name().len() <= 63);
        let map = config_map("n");
        let items = volume("v")
            .projected
            .unwrap()
            .sources
            .unwrap()
            .remove(0)
            .config_map
            .unwrap()
            .items
            .unwrap();
        assert!(
            items
                .iter()
                .all(|item| map.data.as_ref().unwrap().contains_key(&item.key))
        );
    }
}
