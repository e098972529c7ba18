//! Permissions of the authors of load tests, and of an operator that is limited to some namespaces.

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

use crate::operator_identity::{
    NAME, NAMESPACE, apply, can_i, manifests, service_account_kubeconfig, until_allowed,
};
use crate::support::{TestEnv, load_test};
use crate::{cluster, create_script, deploy_target, script_with_requests};

/// Returns an API of the test's namespace that impersonates a user.
pub async fn as_user<K>(env: &TestEnv, name: &str) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let kubeconfig = Kubeconfig::read_from(cluster()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    config.auth_info.impersonate = Some(name.into());
    Api::namespaced(Client::try_from(config).unwrap(), &env.namespace)
}

/// Binds a role to a user in the namespace of the test.
async fn bind(env: &TestEnv, name: &str, kind: &str, role: &str) {
    env.create::<RoleBinding>(json!({"metadata": {"name": format!("{name}-{role}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": name}]}))
        .await;
}

async fn create_role(env: &TestEnv, name: &str, group: &str, resource: &str, verbs: &[&str]) {
    let rules = json!([{"apiGroups": [group], "resources": [resource], "verbs": verbs}]);
    env.create::<Role>(json!({"metadata": {"name": name}, "rules": rules}))
        .await;
}

fn typed_load_test(name: &str) -> LoadTest {
    serde_json::from_value(load_test(name, 1)).unwrap()
}

/// Returns the message of a 403 response.
fn forbidden_message<T: std::fmt::Debug>(result: kube::Result<T>) -> Option<String> {
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
async fn creating_load_tests_requires_permission_to_create_pods() {
    let env = TestEnv::new(&cluster()).await;
    let ann: Api<LoadTest> = as_user(&env, "ann").await;
    create_role(
        &env,
        "loadtests",
        "loadtest.artillery.io",
        "loadtests",
        &["create", "get", "patch"],
    )
    .await;
    create_role(&env, "pods", "", "pods", &["create"]).await;
    bind(&env, "ann", "Role", "loadtests").await;
    // The role binding and, in a new cluster, the policy take effect after a moment.
    let reason = "ann may not create pods in the namespace";
    env.until("the policy is effective", async || {
        forbidden_message(ann.create(&DRY_RUN, &typed_load_test("new")).await)
            .filter(|message| message.contains(reason))
    })
    .await;
    let message = forbidden_message(
        ann.create(&PostParams::default(), &typed_load_test("new"))
            .await,
    )
    .unwrap();
    assert!(
        message.contains(&format!("{reason} {}", env.namespace)),
        "{message}"
    );

    // Without that permission ann may change the metadata of an existing test, but not its spec.
    env.load_test("existing", 1).await;
    let other_script = json!({"spec": {"testScript": {"config": {"configMap": "another"}}}});
    let patched = ann
        .patch(
            "existing",
            &PatchParams::default(),
            &Patch::Merge(&other_script),
        )
        .await;
    assert!(forbidden_message(patched).unwrap().contains(reason));
    let label = json!({"metadata": {"labels": {"team": "a"}}});
    ann.patch("existing", &PatchParams::default(), &Patch::Merge(label))
        .await
        .unwrap();

    bind(&env, "ann", "Role", "pods").await;
    env.until("ann may create pods", async || {
        ann.create(&DRY_RUN, &typed_load_test("new")).await.ok()
    })
    .await;
    ann.create(&PostParams::default(), &typed_load_test("new"))
        .await
        .unwrap();
    ann.patch(
        "existing",
        &PatchParams::default(),
        &Patch::Merge(other_script),
    )
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aggregated_roles_cover_load_tests_but_not_their_status() {
    let env = TestEnv::new(&cluster()).await;
    env.load_test("existing", 1).await;
    for role in ["view", "edit", "admin"] {
        let user: Api<LoadTest> = as_user(&env, role).await;
        bind(&env, role, "ClusterRole", role).await;
        env.until(&format!("{role} can read"), async || {
            user.list(&ListParams::default()).await.ok()
        })
        .await;
        user.get("existing").await.unwrap();
        if role == "view" {
            assert!(
                forbidden_message(
                    user.create(&PostParams::default(), &typed_load_test("of-view"))
                        .await
                )
                .is_some()
            );
            assert!(
                forbidden_message(user.delete("existing", &DeleteParams::default()).await)
                    .is_some()
            );
        } else {
            user.create(
                &PostParams::default(),
                &typed_load_test(&format!("of-{role}")),
            )
            .await
            .unwrap();
        }
        let status = json!({"status": {"phase": "Completed"}});
        assert!(
            forbidden_message(
                user.patch_status("existing", &PatchParams::default(), &Patch::Merge(status))
                    .await
            )
            .is_some(),
            "{role}"
        );
        // A write of the LoadTest itself does not change its status.
        if role != "view" {
            let both =
                json!({"metadata": {"labels": {"by": role}}, "status": {"phase": "Completed"}});
            let patched = user
                .patch("existing", &PatchParams::default(), &Patch::Merge(both))
                .await
                .unwrap();
            assert_eq!(patched.labels()["by"], role);
            assert_eq!(patched.phase(), None);
        }
    }
}

/// Returns the pod that the installed Deployment would create.
async fn installed_pod(env: &TestEnv, namespace: &str) -> Value {
    let deployments: Api<Deployment> = Api::namespaced(env.client.clone(), namespace);
    let template = deployments.get(NAME).await.unwrap().spec.unwrap().template;
    json!({"metadata": {"generateName": "manager-", "labels": template.metadata.unwrap().labels}, "spec": template.spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_pod_passes_the_restricted_pod_security_standard() {
    let env = TestEnv::new(&cluster()).await;
    let namespace = Api::<Namespace>::all(env.client.clone())
        .get(NAMESPACE)
        .await
        .unwrap();
    assert_eq!(
        namespace.labels()["pod-security.kubernetes.io/enforce"],
        "restricted"
    );
    let pods: Api<Pod> = Api::namespaced(env.client.clone(), NAMESPACE);
    let mut pod = installed_pod(&env, NAMESPACE).await;
    let as_is: Pod = serde_json::from_value(pod.clone()).unwrap();
    pods.create(&DRY_RUN, &as_is).await.unwrap();
    // The namespace rejects a pod that violates the standard.
    pod["spec"]["securityContext"] = json!({});
    let lax: Pod = serde_json::from_value(pod).unwrap();
    let message = forbidden_message(pods.create(&DRY_RUN, &lax).await).unwrap();
    assert!(
        message.contains("violates PodSecurity \"restricted"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn network_policy_allows_the_ports_of_the_operator() {
    let env = TestEnv::new(&cluster()).await;
    let policies: Api<NetworkPolicy> = Api::namespaced(env.client.clone(), NAMESPACE);
    let spec = policies.get(NAME).await.unwrap().spec.unwrap();
    assert_eq!(spec.policy_types.unwrap(), ["Ingress"]);
    let allowed: Vec<_> = spec
        .ingress
        .unwrap()
        .into_iter()
        .flat_map(|rule| rule.ports.unwrap())
        .map(|p| p.port.unwrap())
        .collect();
    let pod = installed_pod(&env, NAMESPACE).await;
    let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
    let ports: Vec<_> = ports
        .iter()
        .map(|p| IntOrString::String(p["name"].as_str().unwrap().into()))
        .collect();
    assert_eq!(
        allowed, ports,
        "the policy allows exactly the ports of the Deployment"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespaced_operator_ignores_other_namespaces() {
    let mut env = TestEnv::new(&cluster()).await;
    let other = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    for env in [&env, &other] {
        create_script(env, script_with_requests("/limited", 1)).await;
    }
    // The default namespace of the operator is in use by the installed one.
    let install_namespace = format!("{}-operator", env.namespace);
    let render = |folder: &str| -> Vec<Value> {
        let text = serde_json::to_string(&manifests(folder)).unwrap();
        serde_json::from_str(&text.replace(NAMESPACE, &install_namespace)).unwrap()
    };
    let mut roles = render("config/namespaced/rights");
    for object in &mut roles {
        object["metadata"]["namespace"] = json!(env.namespace);
    }
    apply(&[render("config/namespaced"), roles].concat());
    let account = service_account_kubeconfig(&cluster(), &install_namespace);
    let user = format!("--as=system:serviceaccount:{install_namespace}:{NAME}");
    until_allowed(&["create", "jobs", "-n", &env.namespace, &user]);
    assert!(!can_i(&[
        "list",
        "loadtests",
        "-n",
        &other.namespace,
        &user
    ]));
    assert!(!can_i(&["list", "loadtests", "--all-namespaces", &user]));

    other.create::<LoadTest>(load_test("limited", 1)).await;
    let lease = format!("--leader-elect-namespace={install_namespace}");
    let operator = env
        .start_operator_by(&account, &["--leader-elect", &lease])
        .await;
    env.create::<LoadTest>(load_test("limited", 1)).await;
    env.until_phase("limited", "Completed").await;
    let ignored = other.api::<LoadTest>().get("limited").await.unwrap();
    assert!(
        ignored.phase().is_none()
            && other
                .api::<Job>()
                .get_opt("limited")
                .await
                .unwrap()
                .is_none()
    );
    assert_eq!(env.operator(operator).terminate().await, 0);
    let log = env.operator(operator).log();
    assert!(!log.contains("403") && !log.contains("forbidden"), "{log}");

    let bindings = Api::<ClusterRoleBinding>::all(env.client.clone())
        .list(&ListParams::default())
        .await
        .unwrap();
    let cluster_wide = bindings.items.iter().filter(|b| {
        b.subjects
            .iter()
            .flatten()
            .any(|s| s.namespace.as_ref() == Some(&install_namespace))
    });
    let cluster_wide: Vec<_> = cluster_wide.map(ResourceExt::name_any).collect();
    assert!(cluster_wide.is_empty(), "{cluster_wide:?}");
    std::fs::remove_file(account).unwrap();
    Api::<Namespace>::all(env.client.clone())
        .delete(&install_namespace, &DeleteParams::background())
        .await
        .unwrap();
}
