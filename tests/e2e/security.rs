//! Who may do what: the authors of load tests, and the operator that is limited to some namespaces.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::rights::{NAME, NAMESPACE, apply, become_service_account, manifests, may, until_it_may};
use crate::support::{Bed, load_test};
use crate::{cluster, requests, script, target};

/// What the objects of a namespace are to somebody without rights of an administrator.
pub async fn as_user<K>(bed: &Bed, name: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let kubeconfig = Kubeconfig::read_from(cluster()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.auth_info.impersonate = Some(name.into());
    Api::namespaced(Client::try_from(config).unwrap(), &bed.namespace)
}

/// Gives somebody a role in a namespace.
async fn bind(bed: &Bed, name: &str, kind: &str, role: &str) {
    bed.create::<RoleBinding>(json!({"metadata": {"name": format!("{name}-{role}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]}))
        .await;
}

async fn role(bed: &Bed, name: &str, group: &str, resource: &str, verbs: &[&str]) {
    let rules = json!([{"apiGroups": [group], "resources": [resource], "verbs": verbs}]);
    bed.create::<Role>(json!({"metadata": {"name": name}, "rules": rules}))
        .await;
}

fn object(name: &str) -> LoadTest {
    serde_json::from_value(load_test(name, 1)).unwrap()
}

/// The message of a refusal for lack of rights.
fn refusal<T: std::fmt::Debug>(result: kube::Result<T>) -> Option<String> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 => Some(status.message),
        _ => None,
    }
}

const DRY_RUN: PostParams = PostParams {
    dry_run: true,
    field_manager: None,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_create_pods_may_not_start_load_tests() {
    let bed = Bed::new(&cluster()).await;
    let ann: Api<LoadTest> = as_user(&bed, "ann").await;
    role(
        &bed,
        "loadtests",
        "loadtest.artillery.io",
        "loadtests",
        &["create", "get", "patch"],
    )
    .await;
    role(&bed, "pods", "", "pods", &["create"]).await;
    bind(&bed, "ann", "Role", "loadtests").await;
    // Both her right and, in a new cluster, the policy take a moment to be in force.
    let why = "ann may not create pods in the namespace";
    bed.until("the policy is in force", async || {
        refusal(ann.create(&DRY_RUN, &object("hers")).await).filter(|message| message.contains(why))
    })
    .await;
    let refused = refusal(ann.create(&PostParams::default(), &object("hers")).await).unwrap();
    assert!(
        refused.contains(&format!("{why} {}", bed.namespace)),
        "{refused}"
    );

    // Nor may she change what somebody else's runs; what is not the spec she may.
    bed.load_test("theirs", 1).await;
    let other_script = json!({"spec": {"testScript": {"config": {"configMap": "another"}}}});
    let patched = ann
        .patch(
            "theirs",
            &PatchParams::default(),
            &Patch::Merge(&other_script),
        )
        .await;
    assert!(refusal(patched).unwrap().contains(why));
    let label = json!({"metadata": {"labels": {"team": "a"}}});
    ann.patch("theirs", &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();

    bind(&bed, "ann", "Role", "pods").await;
    bed.until("she may create pods", async || {
        ann.create(&DRY_RUN, &object("hers")).await.ok()
    })
    .await;
    ann.create(&PostParams::default(), &object("hers"))
        .await
        .unwrap();
    ann.patch(
        "theirs",
        &PatchParams::default(),
        &Patch::Merge(other_script),
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_roles_of_a_namespace_cover_load_tests_and_never_their_status() {
    let bed = Bed::new(&cluster()).await;
    bed.load_test("theirs", 1).await;
    for role in ["view", "edit", "admin"] {
        let user: Api<LoadTest> = as_user(&bed, role).await;
        bind(&bed, role, "ClusterRole", role).await;
        bed.until(&format!("{role} can read"), async || {
            user.list(&ListParams::default()).await.ok()
        })
        .await;
        user.get("theirs").await.unwrap();
        if role == "view" {
            assert!(
                refusal(
                    user.create(&PostParams::default(), &object("of-view"))
                        .await
                )
                .is_some()
            );
            assert!(refusal(user.delete("theirs", &DeleteParams::default()).await).is_some());
        } else {
            user.create(&PostParams::default(), &object(&format!("of-{role}")))
                .await
                .unwrap();
        }
        let status = json!({"status": {"phase": "Completed"}});
        assert!(
            refusal(
                user.patch_status("theirs", &PatchParams::default(), &Patch::Merge(status))
                    .await
            )
            .is_some(),
            "{role}"
        );
        // Without the status's own right, what a write to the LoadTest says of the status is dropped.
        if role != "view" {
            let both =
                json!({"metadata": {"labels": {"by": role}}, "status": {"phase": "Completed"}});
            let patched = user
                .patch("theirs", &PatchParams::default(), &Patch::Merge(both))
                .await
                .unwrap();
            assert_eq!(patched.labels()["by"], role);
            assert!(patched.status.is_none());
        }
    }
}

/// The pod of the installed Deployment.
async fn installed_pod(bed: &Bed, namespace: &str) -> Value {
    let deployments: Api<Deployment> = Api::namespaced(bed.client.clone(), namespace);
    let template = deployments.get(NAME).await.unwrap().spec.unwrap().template;
    json!({"metadata": {"generateName": "manager-", "labels": template.metadata.unwrap().labels}, "spec": template.spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_pod_passes_the_restricted_standard() {
    let bed = Bed::new(&cluster()).await;
    let namespace = Api::<Namespace>::all(bed.client.clone())
        .get(NAMESPACE)
        .await
        .unwrap();
    assert_eq!(
        namespace.labels()["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    let pods: Api<Pod> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let mut pod = installed_pod(&bed, NAMESPACE).await;
    let as_is: Pod = serde_json::from_value(pod.clone()).unwrap();
    pods.create(&DRY_RUN, &as_is).await.unwrap();
    // That the namespace would have refused a pod that does not.
    pod["spec"]["securityContext"] = json!({});
    let lax: Pod = serde_json::from_value(pod).unwrap();
    let refused = refusal(pods.create(&DRY_RUN, &lax).await).unwrap();
    assert!(
        refused.contains("violates PodSecurity \"restricted"),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_network_policy_names_ports_that_the_operator_has() {
    let bed = Bed::new(&cluster()).await;
    let policies: Api<NetworkPolicy> = Api::namespaced(bed.client.clone(), NAMESPACE);
    let spec = policies.get(NAME).await.unwrap().spec.unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
    let allowed: Vec<_> = spec
        .ingress
        .unwrap()
        .into_iter()
        .flat_map(|rule| rule.ports.unwrap())
        .map(|p| p.port.unwrap())
        .collect();
    let pod = installed_pod(&bed, NAMESPACE).await;
    let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
    let ports: Vec<_> = ports
        .iter()
        .map(|p| IntOrString::String(p["name"].as_str().unwrap().into()))
        .collect();
    assert_eq!(allowed, ports, "of the policy, and of the Deployment");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_limited_to_a_namespace_leaves_the_others_alone() {
    let mut bed = Bed::new(&cluster()).await;
    let elsewhere = Bed::new(&cluster()).await;
    target(&bed).await;
    for bed in [&bed, &elsewhere] {
        script(bed, requests("/limited", 1)).await;
    }
    // Installed beside the other one, so elsewhere.
    let home = format!("{}-operator", bed.namespace);
    let moved = |folder: &str| -> Vec<Value> {
        let text = serde_json::to_string(&manifests(folder)).unwrap();
        serde_json::from_str(&text.replace(NAMESPACE, &home)).unwrap()
    };
    let mut rights = moved("config/namespaced/rights");
    for object in &mut rights {
        object["metadata"]["namespace"] = json!(bed.namespace);
    }
    apply(&[moved("config/namespaced"), rights].concat());
    let account = become_service_account(&cluster(), &home);
    let user = format!("--as=system:serviceaccount:{home}:{NAME}");
    until_it_may(&["create", "jobs", "-n", &bed.namespace, &user]);
    assert!(!may(&[
        "list",
        "loadtests",
        "-n",
        &elsewhere.namespace,
        &user
    ]));
    assert!(!may(&["list", "loadtests", "--all-namespaces", &user]));

    elsewhere.create::<LoadTest>(load_test("limited", 1)).await;
    let lease = format!("--leader-elect-namespace={home}");
    let operator = bed
        .start_operator_by(&account, &["--leader-elect", &lease])
        .await;
    bed.create::<LoadTest>(load_test("limited", 1)).await;
    bed.until_phase("limited", "Completed").await;
    let left = elsewhere.api::<LoadTest>().get("limited").await.unwrap();
    assert!(
        left.status.is_none()
            && elsewhere
                .api::<Job>()
                .get_opt("limited")
                .await
                .unwrap()
                .is_none()
    );
    assert_eq!(bed.operator(operator).terminate().await, 0);
    let log = bed.operator(operator).log();
    assert!(!log.contains("403") && !log.contains("forbidden"), "{log}");

    let bindings = Api::<ClusterRoleBinding>::all(bed.client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    let cluster_wide = bindings.items.iter().filter(|b| {
        b.subjects
            .iter()
            .flatten()
            .any(|s| s.namespace.as_ref() == Some(&home))
    });
    let cluster_wide: Vec<_> = cluster_wide.map(ResourceExt::name_any).collect();
    assert!(cluster_wide.is_empty(), "{cluster_wide:?}");
    std::fs::remove_file(account).unwrap();
    Api::<Namespace>::all(bed.client.clone())
        .delete(&home, &DeleteParams::background())
        .await
        .unwrap();
}
