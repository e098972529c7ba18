//! Compares the requests of the operators of the other tests, from the API server's audit log, with
//! the permissions that the installed roles grant. Run it directly after the other tests, by
//! `cargo test --test e2e -- --ignored rbac_audit`. It reads the last run only, and a run of a single
//! test uses few of the permissions.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::path::Path;

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::operator_identity::{NAME, NAMESPACE};
use crate::pipelines::{RUNNER, RUNNER_ROLE};
use crate::support::audit::{self, Request};
use crate::support::connect;

/// A verb on a resource, such as `patch loadtests.loadtest.artillery.io/status`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Permission {
    /// `None` stands for all namespaces.
    namespace: Option<String>,
    group: String,
    resource: String,
    verb: String,
    /// The only object that the permission covers. `None` stands for all objects.
    name: Option<String>,
}

impl Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resource, subresource) = self
            .resource
            .split_once('/')
            .unwrap_or((&self.resource, ""));
        let group = if self.group.is_empty() {
            String::new()
        } else {
            format!(".{}", self.group)
        };
        let subresource = if subresource.is_empty() {
            String::new()
        } else {
            format!("/{subresource}")
        };
        let name = self
            .name
            .as_ref()
            .map(|n| format!(" {n}"))
            .unwrap_or_default();
        let place = self
            .namespace
            .as_ref()
            .map(|n| format!(", in {n}"))
            .unwrap_or_default();
        write!(
            f,
            "{} {resource}{group}{subresource}{name}{place}",
            self.verb
        )
    }
}

impl Permission {
    fn covers(&self, request: &Request) -> bool {
        // `*` is not matched on purpose: a role with `*` then has an unused permission, which fails
        // the test.
        self.namespace
            .as_ref()
            .is_none_or(|n| *n == request.namespace)
            && self.group == request.group
            && self.resource == request.resource
            && self.verb == request.verb
            && self.name.as_ref().is_none_or(|n| *n == request.name)
    }
}

/// Whether Kubernetes allows a request to every authenticated user, such as a read of the server's version.
fn is_of_everybody(request: &Request) -> bool {
    request.resource.is_empty()
        && request
            .reason
            .ends_with("to Group \"system:authenticated\"")
}

/// The requests of the operators of the last run of these tests. Each run begins with a token for the service account.
fn requests() -> Vec<Request> {
    let kubeconfig = std::env::var_os("KUBECONFIG").expect("KUBECONFIG is that of a local cluster");
    let log = Path::new(&kubeconfig).with_file_name("audit.log");
    let token = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{NAME}/token");
    let account = format!(":{NAME}");
    let mut requests = Vec::new();
    for request in audit::requests(&log, 0, NAME) {
        if request.uri == token && !request.user.starts_with("system:node:") {
            requests.clear();
        }
        if request.user.ends_with(&account) {
            requests.push(request);
        }
    }
    assert!(
        !requests.is_empty(),
        "no requests in {}: run the other tests first",
        log.display()
    );
    requests
}

/// Returns the permissions that the installed roles grant to the operator.
async fn granted_permissions() -> Vec<Permission> {
    let kubeconfig = std::env::var_os("KUBECONFIG").expect("KUBECONFIG is that of a local cluster");
    let client = connect(Path::new(&kubeconfig)).await;
    let all = ListParams::default();
    let mut permissions = BTreeSet::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone())
        .list(&all)
        .await
        .unwrap()
    {
        if is_bound(binding.subjects.as_deref()) {
            permissions.extend(expand(None, &rules(&client, &binding.role_ref, "").await));
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone())
        .list(&all)
        .await
        .unwrap()
    {
        if is_bound(binding.subjects.as_deref()) {
            let namespace = binding.namespace().unwrap();
            permissions.extend(expand(
                Some(&namespace),
                &rules(&client, &binding.role_ref, &namespace).await,
            ));
        }
    }
    permissions.into_iter().collect()
}

fn is_bound(subjects: Option<&[Subject]>) -> bool {
    subjects
        .unwrap_or_default()
        .iter()
        .any(|s| s.name == NAME && s.namespace.as_deref() == Some(NAMESPACE))
}

async fn rules(client: &Client, role: &RoleRef, namespace: &str) -> Vec<PolicyRule> {
    let rules = if role.kind == "Role" {
        Api::<Role>::namespaced(client.clone(), namespace)
            .get(&role.name)
            .await
            .unwrap()
            .rules
    } else {
        Api::<ClusterRole>::all(client.clone())
            .get(&role.name)
            .await
            .unwrap()
            .rules
    };
    rules.unwrap_or_default()
}

fn expand(namespace: Option<&str>, rules: &[PolicyRule]) -> Vec<Permission> {
    let mut permissions = Vec::new();
    for rule in rules {
        let names: Vec<_> = rule
            .resource_names
            .iter()
            .flatten()
            .cloned()
            .map(Some)
            .collect();
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    for name in if names.is_empty() {
                        &[None]
                    } else {
                        names.as_slice()
                    } {
                        permissions.push(Permission {
                            namespace: namespace.map(str::to_owned),
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: verb.clone(),
                            name: name.clone(),
                        });
                    }
                }
            }
        }
    }
    permissions
}

#[test]
#[ignore = "reads the requests of the other tests: make test runs it after them"]
fn no_request_was_forbidden() {
    let forbidden: Vec<_> = requests().into_iter().filter(|r| !r.is_allowed).collect();
    assert!(forbidden.is_empty(), "{forbidden:#?}");
}

#[tokio::test]
#[ignore = "reads the requests of the other tests: make test runs it after them"]
async fn granted_permissions_are_exactly_those_that_requests_use() {
    let (permissions, user) = (
        granted_permissions().await,
        format!("system:serviceaccount:{NAMESPACE}:{NAME}"),
    );
    let mut counts: BTreeMap<_, _> = permissions
        .iter()
        .map(|permission| (permission.to_string(), 0))
        .collect();
    let mut uncovered = BTreeMap::new();
    for request in requests().iter().filter(|r| r.user == user) {
        match permissions
            .iter()
            .find(|permission| permission.covers(request))
        {
            Some(permission) => *counts.get_mut(&permission.to_string()).unwrap() += 1,
            None if is_of_everybody(request) => {
                *counts
                    .entry(format!(
                        "{} {} (granted to all authenticated users)",
                        request.verb,
                        request.path()
                    ))
                    .or_default() += 1;
            }
            None => {
                *uncovered
                    .entry(format!(
                        "{} {}: {}",
                        request.verb,
                        request.path(),
                        request.reason
                    ))
                    .or_insert(0) += 1;
            }
        }
    }
    println!("\n{:<85} requests", "permission of the operator");
    for (permission, count) in &counts {
        println!("{permission:<85} {count:>8}");
    }
    // This one is for the admission plugin OwnerReferencesPermissionEnforcement, which checks it when a Job is created. The
    // local cluster does not enable the plugin, because it would reject what the policy of worker pods has to reject.
    let checked_by_admission = "update loadtests.loadtest.artillery.io/finalizers";
    let unused: Vec<_> = counts
        .iter()
        .filter(|(permission, count)| **count == 0 && *permission != checked_by_admission)
        .map(|(permission, _)| permission)
        .collect();
    assert!(
        unused.is_empty(),
        "permissions that no request used: {unused:#?}"
    );
    assert!(
        uncovered.is_empty(),
        "requests that the operator's roles do not cover: {uncovered:#?}"
    );
}

#[tokio::test]
#[ignore = "reads the requests of the other tests: make test runs it after them"]
async fn runner_role_grants_exactly_what_the_plugin_uses() {
    let kubeconfig = std::env::var_os("KUBECONFIG").expect("KUBECONFIG is that of a local cluster");
    let kubeconfig = Path::new(&kubeconfig);
    let client = connect(kubeconfig).await;
    let role = Api::<ClusterRole>::all(client).get(RUNNER_ROLE).await;
    let permissions = expand(None, &role.unwrap().rules.unwrap_or_default());
    let log = kubeconfig.with_file_name("audit.log");
    let account = format!(":{RUNNER}");
    let is_of_runner = |request: &Request| request.user.ends_with(&account);
    let requests: Vec<_> = audit::requests(&log, 0, RUNNER)
        .filter(|request| is_of_runner(request) && !is_of_everybody(request))
        .collect();
    assert!(!requests.is_empty(), "run the other tests first");
    let uncovered: Vec<_> = requests
        .iter()
        .filter(|request| !permissions.iter().any(|one| one.covers(request)))
        .map(|request| format!("{} {}", request.verb, request.path()))
        .collect();
    assert!(uncovered.is_empty(), "{uncovered:#?}");
    // The policy of authors checks the first one. A server-side apply that creates an object is a patch, and needs the second one too.
    let checked_otherwise = ["create pods", "create configmaps"];
    let unused: Vec<_> = permissions
        .iter()
        .filter(|permission| !requests.iter().any(|request| permission.covers(request)))
        .map(Permission::to_string)
        .filter(|permission| !checked_otherwise.contains(&permission.as_str()))
        .collect();
    assert!(
        unused.is_empty(),
        "permissions that no request used: {unused:#?}"
    );
}
